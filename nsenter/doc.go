// Package nsenter opens an IPC namespace by pid or by path, runs a function
// in it, makes a fresh one and pins it to a path, tells two namespaces apart
// across time, and reads the id maps of the user namespace that owns one.
//
// It is for programs that work on another container's IPC objects: open a
// [Namespace], then do the work inside [Namespace.Run]. It knows nothing about
// the objects themselves, and it enters IPC namespaces only. To start a whole
// program somewhere else, nsenter(1) and a runtime's exec are the better tools.
//
// Everything here needs /proc, mounted for the caller's own pid namespace.
// See ipc_namespaces(7), setns(2) and ioctl_ns(2).
package nsenter
