"""scripts/ecs: what Force12 needs in an AWS account, registered, compared and removed.

`files` reads cloud-config/ecs and fills it in; `compare` says in what two states differ; `resources` has a class for each
kind of thing; `deploy` goes through them; `__main__` is the command line.
"""
