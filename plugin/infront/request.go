package infront

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
)

// Of CRIU's images/rpc.proto: a criu_req's type and opts, of the types the dump,
// and of criu_opts the root task's pid and external resources.
const (
	reqType      = 1
	reqOpts      = 2
	typeDump     = 1
	optsPID      = 2
	optsExternal = 37
)

const (
	// requestPatience is how long a request may take to come. Who starts `criu
	// swrk` sends it at once.
	requestPatience = 5 * time.Second
	// maxRequest bounds a request: a thousand external mounts are below 100 KiB.
	maxRequest = 4 << 20
)

// Peek adds what the request says that waits on the socket of `criu swrk FD`. The
// request stays there for criu.
func (r *Request) Peek() error {
	if r.socket < 0 {
		return nil
	}
	message, err := peek(r.socket, requestPatience)
	if err != nil {
		return fmt.Errorf("request on descriptor %d: %w", r.socket, err)
	}
	if err := r.read(message); err != nil {
		return fmt.Errorf("request of %d bytes on descriptor %d: %w", len(message), r.socket, err)
	}
	return nil
}

// peek returns the first packet of a socket. Its flags stay as they are: they
// belong to the open file, which criu and the runtime share.
func peek(fd int, patience time.Duration) ([]byte, error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	if kind != unix.SOCK_SEQPACKET {
		return nil, fmt.Errorf("socket of type %d: %w", kind, unix.ESOCKTNOSUPPORT)
	}
	if err := awaitPacket(fd, patience); err != nil {
		return nil, err
	}
	// The length first, as CRIU does (criu/cr-service.c, recv_criu_msg).
	size, _, err := unix.Recvfrom(fd, nil, unix.MSG_PEEK|unix.MSG_TRUNC|unix.MSG_DONTWAIT)
	switch {
	case err != nil:
		return nil, os.NewSyscallError("recvfrom", err)
	case size == 0:
		return nil, fmt.Errorf("the other side has gone: %w", unix.ECONNRESET)
	case size > maxRequest:
		return nil, fmt.Errorf("%d bytes are more than %d: %w", size, maxRequest, unix.EMSGSIZE)
	}
	message := make([]byte, size)
	n, _, err := unix.Recvfrom(fd, message, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, os.NewSyscallError("recvfrom", err)
	}
	return message[:n], nil
}

func awaitPacket(fd int, patience time.Duration) error {
	for deadline := time.Now().Add(patience); ; {
		left := max(time.Until(deadline).Milliseconds(), 0)
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(left))
		switch {
		case errors.Is(err, unix.EINTR): // and the runtime's own signals are many
		case err != nil:
			return os.NewSyscallError("poll", err)
		case n > 0:
			return nil
		case left == 0:
			return fmt.Errorf("none came within %v: %w", patience, unix.ETIMEDOUT)
		}
	}
}

// read takes a criu_req apart. A field that is there twice would be read by some
// as one and by others as the other: no encoder writes that, it is refused.
func (r *Request) read(message []byte) error {
	var kind, pid uint64
	var opts []byte
	if err := once(message, reqType, protowire.VarintType, func(b []byte) { kind, _ = protowire.ConsumeVarint(b) }); err != nil {
		return err
	}
	if kind != typeDump {
		return nil
	}
	r.Dump = true
	if err := once(message, reqOpts, protowire.BytesType, func(b []byte) { opts, _ = protowire.ConsumeBytes(b) }); err != nil {
		return err
	}
	if err := once(opts, optsPID, protowire.VarintType, func(b []byte) { pid, _ = protowire.ConsumeVarint(b) }); err != nil {
		return err
	}
	if pid > math.MaxInt32 {
		return fmt.Errorf("opts.pid is %d", int64(pid))
	}
	r.PID = int(pid)
	if pid == 0 {
		r.Obstacle = "the request names no process: the caller wants to be dumped itself"
	}
	return each(opts, optsExternal, protowire.BytesType, func(b []byte) error {
		value, _ := protowire.ConsumeBytes(b)
		if strings.HasPrefix(string(value), "ipc[") {
			r.obstruct("external", string(value))
		}
		return nil
	})
}

var errTwice = errors.New("is there twice")

// once calls found for a field that may be there once; b begins with its value.
func once(message []byte, number protowire.Number, wire protowire.Type, found func(b []byte)) error {
	seen := false
	return each(message, number, wire, func(b []byte) error {
		if seen {
			return fmt.Errorf("field %d %w", number, errTwice)
		}
		seen = true
		found(b)
		return nil
	})
}

// each calls found for every field of a number. The whole message is checked.
func each(message []byte, number protowire.Number, wire protowire.Type, found func(b []byte) error) error {
	for at := 0; at < len(message); {
		n, w, size := protowire.ConsumeTag(message[at:])
		if size < 0 {
			return fmt.Errorf("offset %d: %w", at, protowire.ParseError(size))
		}
		at += size
		if size = protowire.ConsumeFieldValue(n, w, message[at:]); size < 0 {
			return fmt.Errorf("offset %d: field %d: %w", at, n, protowire.ParseError(size))
		}
		if n == number && w != wire {
			return fmt.Errorf("offset %d: field %d has wire type %d instead of %d", at, n, w, wire)
		}
		if n == number {
			if err := found(message[at : at+size]); err != nil {
				return fmt.Errorf("offset %d: %w", at, err)
			}
		}
		at += size
	}
	return nil
}
