// Package freeze stops every task of an IPC namespace for a moment, so that
// what the tasks share (message queues above all) can be copied as one state.
//
// It seizes each task with ptrace(2) and asks it to stop. The kernel undoes
// that by itself: when the process that called [All] ends, however it ends,
// all tasks run on and no signal of theirs is lost. Nothing is ever resumed
// while the stop lasts.
//
// A task here is a thread. Threads of one process may sit in different IPC
// namespaces, and only those in the namespace are stopped.
//
// It is not for:
//   - the host's IPC namespace, which is refused;
//   - tasks that the caller's pid namespace does not show: they are not seen.
//     Compare what you read before and after the copy;
//   - stopping for long. The tasks' own timers and peers go on, and semop(2)
//     and epoll_wait(2) return EINTR afterwards, as after any stop (signal(7));
//   - children of the calling process that something in it waits for: wait(2)
//     in the tracer's process reports a child's ptrace stops too, and
//     os/exec's Wait would take one for the child's end. Wait after Release.
//
// All needs the right to trace the tasks: the same user with all of the task's
// capabilities, or CAP_SYS_PTRACE in the task's user namespace (ptrace(2),
// "Ptrace access mode checking"), and /proc mounted for the caller's own pid
// namespace.
package freeze
