"""The branchy AlexNet of the paper's Fig. 2: eight layers on the main branch, four exits."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Widths:
    """Channels of each convolution and units of each hidden fully connected layer."""

    conv1: int = 48
    conv2: int = 96
    conv3: int = 192
    conv4: int = 240
    conv5: int = 256
    fc6: int = 256
    fc7: int = 256
    branch1_conv: int = 64
    branch1_fc: int = 64
    branch2_fc: int = 96
    branch3_conv: int = 128
    branch3_fc: int = 128


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    layers = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        norm=nn.BatchNorm2d(outputs),
        relu=nn.ReLU(),
    )
    return nn.Sequential(layers)


def _dense(inputs: int, outputs: int) -> nn.Sequential:
    layers = OrderedDict(
        linear=nn.Linear(inputs, outputs, bias=False), norm=nn.BatchNorm1d(outputs), relu=nn.ReLU()
    )
    return nn.Sequential(layers)


class BranchyAlexNet(nn.Module):
    """Five convolutions and three fully connected layers, with three side branches.

    Branch 1 leaves after the first convolution and ends in one of its own; branch 2 ends in the main
    branch's second: as in Fig. 2 they have two convolutions each and differ in the last. Branch 3 leaves
    after the third and adds one of its own. All convolutions are 3×3 (branch 1's own
    with stride 2) and are followed by batch norm, which export folds into them.
    """

    def __init__(self, classes: int = 10, widths: Widths = Widths()) -> None:
        super().__init__()
        w = widths
        self.conv1, self.pool1 = _conv(3, w.conv1, 3), nn.MaxPool2d(2)
        self.conv2, self.pool2 = _conv(w.conv1, w.conv2, 3), nn.MaxPool2d(2)
        self.conv3 = _conv(w.conv2, w.conv3, 3)
        self.conv4, self.pool4 = _conv(w.conv3, w.conv4, 3), nn.MaxPool2d(2)
        self.conv5, self.pool5 = _conv(w.conv4, w.conv5, 3), nn.MaxPool2d(4)
        self.fc6 = _dense(w.conv5, w.fc6)
        self.fc7 = _dense(w.fc6, w.fc7)
        self.fc8 = nn.Linear(w.fc7, classes)
        self.branch1_conv, self.branch1_pool = _conv(w.conv1, w.branch1_conv, 3, stride=2), nn.MaxPool2d(2)
        self.branch1_fc = _dense(w.branch1_conv * 16, w.branch1_fc)
        self.branch1_out = nn.Linear(w.branch1_fc, classes)
        self.branch2_pool = nn.MaxPool2d(2)
        self.branch2_fc = _dense(w.conv2 * 16, w.branch2_fc)
        self.branch2_out = nn.Linear(w.branch2_fc, classes)
        self.branch3_first_pool = nn.MaxPool2d(2)
        self.branch3_conv, self.branch3_pool = _conv(w.conv3, w.branch3_conv, 3), nn.MaxPool2d(2)
        self.branch3_fc = _dense(w.branch3_conv * 4, w.branch3_fc)
        self.branch3_out = nn.Linear(w.branch3_fc, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits [n, classes] of exits 1 to 4 for normalised images, float [n, 3, 32, 32]."""
        x = self.pool1(self.conv1(images))
        exit1 = self.branch1_fc(self.branch1_pool(self.branch1_conv(x)).flatten(1))
        x = self.pool2(self.conv2(x))
        exit2 = self.branch2_fc(self.branch2_pool(x).flatten(1))
        x = self.conv3(x)
        exit3 = self.branch3_fc(self.branch3_pool(self.branch3_conv(self.branch3_first_pool(x))).flatten(1))
        x = self.pool5(self.conv5(self.pool4(self.conv4(x)))).flatten(1)
        exit4 = self.fc8(self.fc7(self.fc6(x)))
        return self.branch1_out(exit1), self.branch2_out(exit2), self.branch3_out(exit3), exit4
