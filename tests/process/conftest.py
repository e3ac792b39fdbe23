"""The order of the files: those that take minutes begin first, so that they do not end last when files run side by side."""

LONG = ("test_endurance.py", "test_retrieval_chaos.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
