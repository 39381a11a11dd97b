"""The student: a compact image tower and a compact text tower.

- ``students.model``: ``StudentModel``, and ``load_student`` to load one.
- ``students.encoder``: ``Student``, which adds tokenizer and image processor, and functions that
  embed pictures and texts.
- ``students.build``: build students from the fields of a recipe.
- ``students.config``, ``students.towers``, ``students.backbone``: what a student is made of.
- ``students.parts``, ``students.switches``: find a model's parts, and save memory or time.
- ``students.loading``, ``students.hub``, ``students.messages``: find and load models, and report
  what is wrong with them.
"""
