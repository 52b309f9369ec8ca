"""What `busctl doctor` finds out.

Facts are gathered first, all at the same time. Checks then judge them, each a small pure function.

A check that needs what another one found broken is not made: of a database that is down nothing else is known, and
nothing else is said to be wrong.
"""
