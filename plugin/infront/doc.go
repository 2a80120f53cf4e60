// Package infront is the place in front of criu. The binary, run under the name
// criu, looks at what is asked of it without consuming it, and executes the real
// criu, the next one on PATH. For a dump it first enters the IPC namespace of
// the tasks, so that criu takes that namespace for its own and leaves the
// message queues alone, and adds the action script that saves them instead
// (package criuhook), through CRIU_CONFIG_FILE. Only criu moves, not the runtime
// above it.
//
// The order of events:
//
//	a runtime, or a person, starts criu       Main, in the process that becomes criu
//	  what is asked?                          command line, or a peek at the swrk socket
//	  may criu sit beside those tasks?        not the host's namespace, nothing in it that ipc-cr does not carry
//	  configuration, setns(2), execve(2)
//	criu dumps, and calls the script at post-dump
//	  is this such a dump?                    Beside
//	  the inventory, then the queues' images  Save
//
// What cannot go this way goes the ordinary way: criu is executed where it was
// started and with what it was given. Main says why in one line, in the file of a
// Link or else on stderr; and because runtimes give criu no stderr (runc's is
// /dev/null), in OrdinaryEnv for an action script that is in force anyway. Nothing
// that fails before criu runs fails the checkpoint.
//
// Left as criu wrote it, a dump made beside the namespace restores its tasks into
// the namespace in which that criu runs. So Save changes the inventory before
// anything else: from then on, until the images are complete, nobody restores it.
//
// A criu before 3.19 aborts on the action script when a runtime starts it. Main does
// not ask for the version, which would cost a start of criu each time: what puts the
// place in front asks once (package criuconf, CheckCRIU and Install).
//
// Do not use it where criu is built into a program as a library call without
// the criu binary, and not for pre-dumps and page servers, which it leaves alone.
package infront
