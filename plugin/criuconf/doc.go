// Package criuconf puts ipc-cr's action script into CRIU's configuration files
// and takes it out again. Scripts, Add and Remove work on the text of a file
// alone; Install, Uninstall and Check on a host, or on the tree of a package.
// Install also puts the binary itself in front of criu: under that name, in a
// directory that is searched before the real one's (package infront is what it
// does there).
//
// The format is that of criu(8), CONFIGURATION FILES, as criu/config.c reads it:
// an option a line without its leading dashes, with at most one value, which may
// stand in double quotes; # begins a comment. An action-script has a path as its
// value and no arguments. There may be several of them: CRIU runs them all, the
// one of the last line first, each whatever became of the others
// (criu/action-scripts.c).
//
// It is not a general editor of these files: it adds and removes one line and
// refuses files that it does not understand.
package criuconf
