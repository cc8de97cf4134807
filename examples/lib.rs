//! This package has no library of its own; see the programs and tests beside this file.
