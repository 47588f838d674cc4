"""``python -m verger`` is the command ``verger``."""

from verger.cli import main

if __name__ == "__main__":
    main()
