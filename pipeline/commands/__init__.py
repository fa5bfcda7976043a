"""The steps as commands: what a script in workflows/ and `emdistill <step>` have in common, one module per step.

Each module is called like its script and has a function `main`, which reads the command line and exits.
"""
