"""What strangers can do, and what they cannot: floods, slow ones, bombs, and bytes by chance."""
