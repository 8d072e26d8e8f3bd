//! The users file: `NAME:HASH`, one a line; read strictly, edited without touching what it does not own.
