"""The exercises, easiest first. Each file holds what is blanked, the hints, and the grader.

    NAME, SYMBOL    as the list shows them
    FILE, BLANKS    which functions of which file are blanked
    HINTS           three, each says more than the one before
    RUN             is it also graded by ten iterations of the embedded world
    IN_RUN          lines behind FILE in those, where training has a faster way past the function
    by_hand(m)      worked numbers; m is the student's file as a module; raises Wrong
    oracle(m)       an outside way to the same numbers
    probe(m)        what m computes on inputs at which every mistake of MISTAKES differs
    MISTAKES        (sentence, our function with that fault)
"""
from classroom.exercises import (
    answers, center, dev_gradient, gamma, keyed, learnability, loop, normalise, parse, plain,
    streamed, tokens, tree, update)

EXERCISES = {exercise.NAME: exercise for exercise in (
    center,
    normalise,
    tokens,
    learnability,
    parse,
    answers,
    keyed,
    tree,
    gamma,
    dev_gradient,
    plain,
    streamed,
    update,
    loop,
)}
