// Package plugin is the engine of ipc-cr: it checkpoints the objects of an IPC
// namespace into an images directory and restores them, all or nothing. It is
// what the ipc-cr command, and programs that use ipc-cr as a library, call.
//
// The engine knows the order of events and no kind of object by name. Kinds are
// values that the caller chooses:
//
//	kinds := []plugin.Kind{msgq.Kind{}, ipcvar.Kind{}}
//	ns, err := nsenter.OpenPID(pid)
//	...
//	report, err := plugin.Checkpoint(ctx, plugin.CheckpointOptions{
//		Kinds: kinds, Namespace: ns, Dir: "/var/lib/checkpoints/web", Number: 1,
//	})
//
// While tasks are frozen the kernel's timers run against the calling process: where it
// is stopped itself it gets SIGCONT at the end of ten seconds, and SIGKILL three seconds
// after that, so that a container never stays frozen because of it.
//
// Package plugin/internal/guard starts, where something has to be put back even
// after a SIGKILL, a second process of the same program, which a package
// initializer recognises by its argv[0] before main runs.
package plugin
