// Package criuhook is ipc-cr as CRIU calls it: as an action script (criu(8),
// --action-script), or through go-criu's Notify in a Go program that drives CRIU.
//
// On dump it keeps the neighbours of the container still while CRIU copies a
// shared IPC namespace, compares CRIU's copy with the namespace and completes it.
// On restore it keeps CRIU from restoring message queues and restores them itself.
// A failure makes CRIU give up, which is wanted whenever the queues could not be
// saved or brought back.
//
// It is for CRIU's moments only. Whoever has a namespace and a directory, and no
// CRIU, wants package plugin.
package criuhook
