"""What makes a recording be used again: what it took in, and whether that is the same at another call.

- `facts.py` goes through arguments, closures, globals and objects, and writes down what must hold: the
  *facts*, which others call guards;
- `match.py` writes the function that checks them at each call;
- `code.py` says what a function names, `objects.py` what is in an object, `data.py` when numbers, texts and
  containers are the same;
- `outside.py` refuses arrays of modules that are no arguments, `randomness.py` warns of random numbers that
  would be drawn once.
"""
