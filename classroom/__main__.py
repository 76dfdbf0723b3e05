"""Write the core of the method yourself, and see the embedded world learn or fail because of it.

    python -m classroom                      the exercises
    python -m classroom start DIR [NAME...]  a copy of the project with their functions blanked
    python -m classroom check [NAME...]      grade what you wrote: numbers, oracle, a run
    python -m classroom show NAME            our function beside yours
    python -m classroom reset NAME           the blank one again
"""
import argparse
import sys

from classroom import course, sources
from classroom.exercises import EXERCISES
from data import InputError

TITLES = {"blank": "blank", "file": "your file", "by_hand": "worked numbers", "oracle": "oracle",
          "grading": "grading", "run": "ten iterations"}


def listing():
    """The exercises, easiest first."""
    print("Exercises, easiest first:\n")
    name = max(len(exercise.NAME) for exercise in EXERCISES.values())
    symbol = max(len(exercise.SYMBOL) for exercise in EXERCISES.values())
    for exercise in EXERCISES.values():
        print(f"  {exercise.NAME:<{name}}  {exercise.SYMBOL:<{symbol}}  {exercise.FILE}")
    print("\nBegin with: python -m classroom start my-course")


def start(args):
    names = [named(name).NAME for name in args.names] or list(EXERCISES)
    course.start(args.folder, names)
    first = EXERCISES[names[0]]
    print(f"{len(names)} exercises in {args.folder}. The first: {first.NAME}, in "
          f"{args.folder}/{first.FILE}; look for EXERCISE.\n"
          f"When it is written, from this folder: python -m classroom check {first.NAME}")


def check(args):
    """-> 1 where an exercise did not pass."""
    # torch is imported here, since the other commands do without
    from classroom import grader, running
    folder = course.find(args.dir)
    exercises = [named(name) for name in args.names] or course.exercises_of(folder)
    passed = []
    for exercise in exercises:
        print(f"{exercise.NAME}    {exercise.SYMBOL}", flush=True)
        verdict = grader.check(folder, exercise)
        for what, right, sentence in verdict:
            say(what, right, sentence)
        # one sentence a step: the run of a function that is known to be wrong only if asked for
        readable = "file" not in [what for what, _, _ in verdict]
        if exercise.RUN and not args.no_run and (verdict.passed or args.run and readable):
            outcome, lines = running.beside(folder, exercise)
            say("run", *outcome)
            print("\n".join(lines))
            verdict.append(("run", *outcome))
        elif args.run and not exercise.RUN:
            say("run", True, "none: the main recipe does not call it")
        if verdict.passed:
            passed.append(exercise.NAME)
    print(f"\n{len(passed)} of {len(exercises)} passed")
    if len(exercises) == 1 and passed:
        what_now(exercises[0], course.exercises_of(folder))
    return 0 if len(passed) == len(exercises) else 1


def what_now(exercise, course_of):
    """The exercise behind the one that passed."""
    names = [other.NAME for other in course_of]
    behind = names[names.index(exercise.NAME) + 1:] if exercise.NAME in names else []
    if behind:
        print(f"Next: {behind[0]}, in {EXERCISES[behind[0]].FILE}. Ours beside yours: "
              f"python -m classroom show {exercise.NAME}")


def say(what, right, sentence):
    print(f"  {TITLES[what]:<16}{'ok' if right and sentence == 'ok' else sentence}", flush=True)


def show(args):
    """Ours, then theirs."""
    exercise = named(args.name)
    ours = course.reference(exercise.FILE)
    texts = {"ours": ours}
    folder = course.find(args.dir)
    texts["yours"] = course.theirs(folder, exercise)
    for whose, text in texts.items():
        for name in exercise.BLANKS:
            print(f"# ---------------- {whose}: {exercise.FILE}, {name}")
            print(sources.source(text, name))


def reset(args):
    exercise = named(args.name)
    folder = course.find(args.dir)
    course.reset(folder, exercise)
    print(f"{exercise.NAME} is blank again in {folder}/{exercise.FILE}")


def named(name):
    if name not in EXERCISES:
        raise InputError(f"{name}: no such exercise; they are {', '.join(EXERCISES)}")
    return EXERCISES[name]


def command_line():
    parser = argparse.ArgumentParser(
        prog="python -m classroom", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    begin = commands.add_parser("start", help="a new course")
    begin.add_argument("folder", metavar="DIR")
    begin.add_argument("names", nargs="*", metavar="NAME", help="exercises; none: all")
    grade = commands.add_parser("check", help="grade what you wrote")
    grade.add_argument("names", nargs="*", metavar="NAME", help="exercises; none: all")
    grade.add_argument("--no_run", action="store_true", help="numbers only, no ten iterations")
    grade.add_argument("--run", action="store_true", help="ten iterations even where wrong")
    one = [commands.add_parser("show", help="our function beside yours"),
           commands.add_parser("reset", help="the blank function again")]
    for command in one:
        command.add_argument("name", metavar="NAME")
    for command in (grade, *one):
        command.add_argument("--dir", help="the course; none: this folder, or the last started")
    return parser


def main(argv=None):
    args = command_line().parse_args(argv)
    if not args.command:
        return listing()
    try:
        return globals()[args.command](args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except sources.NotThere as error:
        print(f"error: your {EXERCISES[args.name].FILE} {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
