"""A small world of coloured shapes: pictures, phrases, questions and dialogs about them, endless and seeded."""
