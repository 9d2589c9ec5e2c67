//! Runnable examples of Quorate; see the files of this folder.
