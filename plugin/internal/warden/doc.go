// Package warden keeps what must last from one action of a CRIU run to the next,
// and puts it back when CRIU has ended, however it ends.
//
// CRIU calls its action script anew for each action (pre-dump, post-dump,
// pre-restore, post-setup-namespaces and so on), as a short process each time.
// What one of them begins and another ends, tasks that are frozen and image
// files that are set aside, is kept by a warden: a small process of the same
// binary, in a session of its own, with nothing open but stdio on /dev/null,
// its socket and what it guards. A hook process starts it, later ones talk to
// it. It lives until it is told to end or CRIU has died, which it learns from a
// pidfd; then it puts everything back.
//
// It may be killed too. Tasks are then let go by the kernel (package freeze).
// What is set aside is noted first in the state directory (package state), and
// Start or Recover puts it right.
//
// Importing this package is all that a program needs: where the binary is
// started as a warden, the package's initialisation does the warden's work and
// exits, before main.
//
// Do not use it for what one process begins and ends itself: that is what the
// packages freeze and guard are for.
package warden
