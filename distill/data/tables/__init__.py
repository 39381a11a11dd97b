"""Tables: rows of pictures and captions in every form."""
