// Package config reads the settings of the hooks, /etc/ipc-cr/config.toml. The
// hooks run as root on behalf of container runtimes, which pass no flags to
// them: what an administrator decides must stand in a file. Commands that
// people call have flags and do not read it.
//
//	neighbours     = "stop"      # or "ignore"
//	neighbours_max = "10s"       # no limit without it
//	in_place       = "refuse"    # or "keep", "rollback"
//	later          = "refuse"    # or "keep"
//	again          = "refuse"    # or "keep", "rollback"
//	existing       = "refuse"    # or "adopt"
//	method         = "auto"      # or "copy", "bpf"
//	host_queues    = ["0x1234:1000"] # key and owner; none without it
package config

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// Path is where the settings are.
const Path = "/etc/ipc-cr/config.toml"

// Neighbours is what a dump does with tasks of a shared IPC namespace that are
// not in the container. CRIU freezes the container's tasks only.
type Neighbours string

// StopNeighbours stops them until CRIU's dump has ended, IgnoreNeighbours lets
// them run and risks a torn copy.
const (
	StopNeighbours   Neighbours = "stop"
	IgnoreNeighbours Neighbours = "ignore"
)

// InPlace is what a restore does with objects that changed since a checkpoint
// taken of the very namespace into which it is restored. Where nothing is said, it
// is RefuseInPlace if the container was left running, and else KeepInPlace.
type InPlace string

// RefuseInPlace fails the restore, KeepInPlace leaves the objects as they are,
// RollbackInPlace makes them what the checkpoint holds.
const (
	RefuseInPlace   InPlace = "refuse"
	KeepInPlace     InPlace = "keep"
	RollbackInPlace InPlace = "rollback"
)

// Later is what a restore of a later checkpoint does with objects that somebody
// has used since an earlier one was restored.
type Later string

// RefuseLater fails the restore, KeepLater leaves the objects as they are.
const (
	RefuseLater Later = "refuse"
	KeepLater   Later = "keep"
)

// Again is what a restore does with objects that somebody has used since the same
// checkpoint was restored before, and its container ran.
type Again string

// RefuseAgain fails the restore, KeepAgain leaves the objects as they are,
// RollbackAgain makes them what the checkpoint holds.
const (
	RefuseAgain   Again = "refuse"
	KeepAgain     Again = "keep"
	RollbackAgain Again = "rollback"
)

// Existing is what a restore does with objects that are there already, differ and
// were not restored.
type Existing string

// RefuseExisting fails the restore, AdoptExisting leaves the objects as they are.
const (
	RefuseExisting Existing = "refuse"
	AdoptExisting  Existing = "adopt"
)

// Method is how messages are copied.
type Method string

// AutoMethod takes what is quicker, CopyMethod is MSG_COPY, BPFMethod a walk along
// each queue where that is possible.
const (
	AutoMethod Method = "auto"
	CopyMethod Method = "copy"
	BPFMethod  Method = "bpf"
)

// Config is the settings in force.
type Config struct {
	Neighbours    Neighbours
	NeighboursMax time.Duration // how long a dump may hold neighbours; 0: no limit
	InPlace       InPlace       // "" where nothing is said
	Later         Later
	Again         Again
	Existing      Existing
	Method        Method
	HostQueues    HostQueues
}

// Default returns the settings of a host without the file.
func Default() *Config {
	return &Config{Neighbours: StopNeighbours, Later: RefuseLater, Again: RefuseAgain, Existing: RefuseExisting, Method: AutoMethod}
}

// Load reads the settings. Without the file, or without its directory, they are
// the defaults. The error names the file and, where the content is wrong, line,
// key and what is allowed; ErrUntrusted if others than root could have written
// it. Everybody who can read the file can load it.
func Load(path string) (*Config, error) {
	content, err := read(path, 0)
	if errors.Is(err, unix.ENOENT) {
		return Default(), nil
	}
	if err != nil {
		return nil, err
	}
	return Parse(path, content)
}
