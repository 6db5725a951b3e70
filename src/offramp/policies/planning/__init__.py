"""What the planner is made of: traffic models, the compiled recursion over backlogs, and the plans it gives."""
