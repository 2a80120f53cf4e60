// Package msgq carries System V message queues (sysvipc(7)) between the kernel
// and CRIU's ipcns-msg image. It is a kind: a value for the slice that the
// engine in package plugin is given.
package msgq

import "github.com/ipc-cr/ipc-cr/plugin/internal/kind"

// Kind is the kind of System V message queues. The zero value is ready, and is
// that of all queues.
type Kind struct {
	chosen kind.Selection
}

var _ kind.Selectable = Kind{}

// Name implements kind.Kind.
func (Kind) Name() string { return "msgq" }

// Select implements kind.Selectable.
func (Kind) Select(chosen kind.Selection) kind.Kind { return Kind{chosen: chosen} }

// The sysctls that bound message queues (proc_sys_kernel(5)).
const (
	msgmax = "kernel.msgmax"
	msgmnb = "kernel.msgmnb"
	msgmni = "kernel.msgmni"
)
