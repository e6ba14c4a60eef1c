"""Why a model says what it says, as pictures."""
