"""What the harness benchmark puts in place of a target and a model: stubs that answer at once.

Everything else is the real thing: `bench.stub.dev` is `anneal dev` whose worker, evaluator and checkpoint get the stub
sessions and the stub driver of `bench.stub.service` where they would open SSH and save a root.
"""
