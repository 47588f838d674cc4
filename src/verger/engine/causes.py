"""Find in what Java and Spark say the line that tells why something failed.

Java prints an error with the calls that led to it, then its cause, and the cause of that; Spark
puts the traceback of a Python worker among them. The last cause that has words tells most.
"""

from __future__ import annotations

import re

#: The head of an error: what precedes it, its class and its words.
_HEAD = re.compile(
    r"^\s*(?:(?:Caused by|Exception in thread \"[^\"]*\"):? ?|: )?"
    r"(?P<name>(?:[A-Za-z_$][\w$]*\.)*[A-Z][\w$]*(?:Exception|Error|Failure|Exit|Interrupt))"
    r"(?:: ?(?P<words>.*))?$"
)
#: A line of Spark's log.
_LOGGED = re.compile(r"^\d\d:\d\d:\d\d ERROR [\w$.]+: (?P<words>\S.*)$")
#: A line that belongs to no error's text: a call, a line of Python's source, a heading.
_CALL = re.compile(r"^\s+(?:at |\.\.\. \d+ more|File \"|Suppressed: )|^(?:\S+ )?[Ss]tack ?trace:")
_TRACEBACK = "Traceback (most recent call last):"
#: What only says that the cause is somewhere else.
_EMPTY = re.compile(
    r"^(?:|Traceback \(most recent.*|An exception was thrown from the Python worker\..*"
    r"|\[JAVA_GATEWAY_EXITED\].*|Java gateway process exited.*|Could not create the Java Virtual.*"
    r"|A fatal exception has occurred.*|Error occurred during initialization of VM|Trace)$"
)
#: How the failure of a task begins, whose own words follow.
_LOST_TASK = re.compile(r"^Job aborted due to stage failure: .*\(TID \d+\) \([^)]*\): (?=\S)")
#: What a Java that starts well says too.
_NOISE = re.compile(
    r"^(?:WARNING: |NOTE: |Picked up |Using Spark's |SLF4J|Setting default log level|To adjust "
    r"|OpenJDK .* warning:|\d\d/\d\d/\d\d \S+ (?:INFO|WARN) )"
)
#: Longest text that is told, in characters.
_LONGEST = 400


def cause_of(said: BaseException | str) -> str:
    """Return in one line why Java, Spark or a Python worker failed.

    Parameters
    ----------
    said : exception or str
        An error of Spark's or of py4j's, or what Java has printed.

    Returns
    -------
    str
        The class, without its package, and the words of the last cause that has words; else the
        first line that says something. Of what Java prints when all is well, nothing.
    """
    text = str(said)
    lines = text.splitlines()
    told = ""
    for number, line in enumerate(lines):
        head = _HEAD.match(line)
        words = _words(head["words"] or "", lines[number + 1 :]) if head else ""
        if head and words:
            told = f"{head['name'].rpartition('.')[2]}: {words}"
        if logged := _LOGGED.match(line):
            told = logged["words"]
    told = told or _first_words(lines)
    if not told and isinstance(said, BaseException):
        told = lines[0].strip() if lines else type(said).__name__
    return told if len(told) <= _LONGEST else f"{told[: _LONGEST - 4]} ..."


def _words(first: str, below: list[str]) -> str:
    """Return the words of an error, which may begin on the lines below its head."""
    words = [] if _EMPTY.match(first.strip()) else [first.strip()]
    if first.strip() == _TRACEBACK:  # a Python error, with a head of its own
        return ""
    for line in below:
        if words and not words[-1].endswith(":"):
            break
        if _CALL.match(line) or _HEAD.match(line) or line.strip() == _TRACEBACK:
            break
        if line.strip() and not _EMPTY.match(line.strip()):
            words.append(line.strip())
    return _LOST_TASK.sub("", " ".join(words))


def _first_words(lines: list[str]) -> str:
    for line in lines:
        words = line.strip().removeprefix("Error: ").removeprefix("ERROR: ")
        if not (_NOISE.match(words) or _EMPTY.match(words) or _CALL.match(line)):
            return words
    return ""
