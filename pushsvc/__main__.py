"""``python -m pushsvc`` is the ``pushsvc`` command."""

from pushsvc.cli import main

if __name__ == "__main__":
    main()
