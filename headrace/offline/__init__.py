"""How are the rows of files answered, by engines of this machine and without a server: `headrace batch run`?"""
