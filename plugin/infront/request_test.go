package infront

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

func TestParseCommandLine(t *testing.T) {
	for text, want := range map[string]Request{
		"dump -t 42":                              {Dump: true, PID: 42},
		"dump --tree 42 -D dir":                   {Dump: true, PID: 42},
		"dump --tree=42":                          {Dump: true, PID: 42},
		"-t42 dump":                               {Dump: true, PID: 42},
		"-D dump -v4 -o log -Rt 42 dump":          {Dump: true, PID: 42},
		"dump -t 1 -t 42":                         {Dump: true, PID: 42},
		"dump -t 42 --leave-running --shell-job":  {Dump: true, PID: 42},
		"dump -t 42 --external mnt[]:x -j":        {Dump: true, PID: 42},
		"dump -t 42 --manage-cgroups=full -x":     {Dump: true, PID: 42},
		"--work-dir dump restore":                 {},
		"restore -t 42":                           {},
		"pre-dump -t 42 -D dir":                   {},
		"check --feature dump":                    {},
		"cpuinfo dump":                            {},
		"--version":                               {},
		"":                                        {},
		"-h":                                      {},
		"restore --exec-cmd -D d -- dump -t 42":   {},
		"dump -t 42 --stream":                     {Dump: true, PID: 42, Obstacle: "stream"},
		"dump -t 42 --external ipc[4026532177]:x": {Dump: true, PID: 42, Obstacle: "external"},
		"dump --external=ipc[1]:x -t 42":          {Dump: true, PID: 42, Obstacle: "external"},
	} {
		got, err := ParseCommandLine(strings.Fields(text))
		if err != nil || got.Dump != want.Dump || got.PID != want.PID || !strings.Contains(got.Obstacle, want.Obstacle) ||
			(got.Obstacle == "") != (want.Obstacle == "") || got.socket != -1 {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
}

func TestParseCommandLineRefuses(t *testing.T) {
	for text, says := range map[string]string{
		"dump":                          `dump of process ""`,
		"dump -t":                       "-t without its argument",
		"dump -t 0":                     `dump of process "0"`,
		"dump -t -5":                    `dump of process "-5"`,
		"dump -t 4x":                    `dump of process "4x"`,
		"dump -t 4294967296":            `dump of process "4294967296"`,
		"dump --tree":                   "--tree without its argument",
		"dump --tre 42":                 `["dump" "42"]: more than one command, or an option unknown here`,
		"dump --new-option value -t 42": `["dump" "value"]: more than one command, or an option unknown here`,
		"dump restore -t 42":            `["dump" "restore"]: more than one command, or an option unknown here`,
		"dump -t 42 -Z":                 "-Z is unknown here",
		"dump -vt 42":                   `["dump" "42"]: more than one command, or an option unknown here`,
		"dump -t 42 -:":                 "-: is unknown here",
		"swrk x":                        `swrk of descriptor "x"`,
		"swrk -1 dump":                  "-1 is unknown here",
		"swrk 99999999999":              `swrk of descriptor "99999999999"`,
	} {
		if got, err := ParseCommandLine(strings.Fields(text)); fmt.Sprint(err) != "command line of criu: "+says {
			t.Errorf("%q: %+v, %v, want %q", text, got, err, says)
		}
	}
}

func TestParseCommandLineOfAWorker(t *testing.T) {
	got, err := ParseCommandLine([]string{"swrk", "3"})
	if err != nil || got.Dump || got.socket != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = ParseCommandLine([]string{"--config", "dump", "swrk", "7"})
	if err != nil || got.socket != 7 || got.config != "dump" || got.defaults {
		t.Errorf("%+v, %v", got, err)
	}
}

// testdata holds what runc 1.1.5 sent to criu: one packet a process.
func TestReadRequestsOfRunc(t *testing.T) {
	for name, want := range map[string]Request{
		"version": {}, "dump": {Dump: true, PID: 27623}, "restore": {},
	} {
		message, err := os.ReadFile(filepath.Join("testdata", "runc-"+name+".req"))
		if err != nil {
			t.Fatal(err)
		}
		var got Request
		if err := got.read(message); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, want)
		}
	}
}

// What go-criu's encoder writes is read the same.
func TestReadRequest(t *testing.T) {
	for kind := range rpc.CriuReqType_name {
		req := &rpc.CriuReq{
			Type: rpc.CriuReqType(kind).Enum(), KeepOpen: proto.Bool(true),
			Opts: &rpc.CriuOpts{ImagesDirFd: proto.Int32(-1), Pid: proto.Int32(math.MaxInt32), External: []string{"mnt[]:s"}},
		}
		message, err := proto.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		var got Request
		want := Request{}
		if req.GetType() == rpc.CriuReqType_DUMP {
			want = Request{Dump: true, PID: math.MaxInt32}
		}
		if err := got.read(message); err != nil || got != want {
			t.Errorf("%v: %+v, %v, want %+v", req.GetType(), got, err, want)
		}
	}
}

func dumpRequest(opts ...[]byte) []byte {
	b := protowire.AppendVarint(protowire.AppendTag(nil, reqType, protowire.VarintType), typeDump)
	return protowire.AppendBytes(protowire.AppendTag(b, reqOpts, protowire.BytesType), bytes.Join(opts, nil))
}

func varint(number protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), value)
}

func text(number protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), value)
}

func TestReadRequestObstacles(t *testing.T) {
	for name, message := range map[string][]byte{
		"no pid":   dumpRequest(varint(1, 5)),
		"no opts":  varint(reqType, typeDump),
		"pid 0":    dumpRequest(varint(optsPID, 0)),
		"external": dumpRequest(varint(optsPID, 1), text(optsExternal, "mnt[]:m"), text(optsExternal, "ipc[1]:x")),
	} {
		var got Request
		if err := got.read(message); err != nil || !got.Dump || got.Obstacle == "" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestReadRequestRefuses(t *testing.T) {
	for says, message := range map[string][]byte{
		"variable length integer overflow":                []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
		"offset 3: field 1 is there twice":                append(varint(reqType, 10), varint(reqType, typeDump)...),
		"offset 1: field 1 has wire type 2 instead of 0":  text(reqType, "dump"),
		"offset 7: field 2 is there twice":                append(dumpRequest(varint(optsPID, 1)), text(reqOpts, "")...),
		"offset 3: field 2: unexpected EOF":               append(varint(reqType, typeDump), reqOpts<<3|2, 100),
		"offset 0: unexpected EOF":                        dumpRequest([]byte{0xff}),
		"offset 3: field 2 is there twice":                dumpRequest(varint(optsPID, 1), varint(optsPID, 2)),
		"offset 1: field 2 has wire type 2 instead of 0":  dumpRequest(text(optsPID, "1")),
		"opts.pid is -1":                                  dumpRequest(varint(optsPID, math.MaxUint64)),
		"opts.pid is 2147483648":                          dumpRequest(varint(optsPID, 1<<31)),
		"offset 4: field 37 has wire type 0 instead of 2": dumpRequest(varint(optsPID, 1), varint(optsExternal, 1)),
		"offset 3: field 9: unexpected EOF":               dumpRequest(varint(optsPID, 1), []byte{9<<3 | 1, 1}),
	} {
		var got Request
		if err := got.read(message); err == nil || !strings.HasSuffix(err.Error(), says) {
			t.Errorf("%+v, %v, want %q", got, err, says)
		}
	}
}

func FuzzReadRequest(f *testing.F) {
	for _, name := range []string{"version", "dump", "restore"} {
		message, err := os.ReadFile(filepath.Join("testdata", "runc-"+name+".req"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(message)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		var got Request
		if err := got.read(message); err != nil || !got.Dump {
			return
		}
		var want rpc.CriuReq
		if err := (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(message, &want); err != nil {
			return // text that is not UTF-8, and other pickiness
		}
		if want.GetType() != rpc.CriuReqType_DUMP || int(want.GetOpts().GetPid()) != got.PID {
			t.Errorf("%+v, go-criu reads %v", got, &want)
		}
	})
}

func packets(t *testing.T, kind int) (ours, theirs int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pair[0]) })
	return pair[0], pair[1]
}

// The request is still there afterwards, all of it, and the socket as it was.
func TestPeekLeavesTheRequest(t *testing.T) {
	for _, size := range []int{2, 1000, 100 << 10} {
		ours, theirs := packets(t, unix.SOCK_SEQPACKET)
		message := bytes.Repeat([]byte{7}, size)
		go func() {
			defer unix.Close(theirs)
			if err := unix.Sendto(theirs, message, 0, nil); err != nil {
				t.Error(err)
			}
		}()
		for range 2 {
			if got, err := peek(ours, time.Minute); err != nil || !bytes.Equal(got, message) {
				t.Errorf("%d bytes: peeked %d, %v", size, len(got), err)
			}
		}
		buf := make([]byte, size+1)
		if n, _, err := unix.Recvfrom(ours, buf, 0); err != nil || !bytes.Equal(buf[:n], message) {
			t.Errorf("%d bytes: received %d, %v", size, n, err)
		}
		if flags, err := unix.FcntlInt(uintptr(ours), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("flags %#x, %v", flags, err)
		}
	}
}

func TestPeekGivesUp(t *testing.T) {
	silent, other := packets(t, unix.SOCK_SEQPACKET)
	defer unix.Close(other)
	if _, err := peek(silent, time.Millisecond); !errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("silence: %v", err)
	}
	gone, other := packets(t, unix.SOCK_SEQPACKET)
	unix.Close(other)
	if _, err := peek(gone, time.Minute); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("other side gone: %v", err)
	}
	stream, other := packets(t, unix.SOCK_STREAM)
	defer unix.Close(other)
	if _, err := peek(stream, time.Minute); !errors.Is(err, unix.ESOCKTNOSUPPORT) {
		t.Errorf("stream: %v", err)
	}
	for _, fd := range []int{12345, -1, math.MaxInt32} {
		if _, err := peek(fd, time.Minute); !errors.Is(err, unix.EBADF) {
			t.Errorf("descriptor %d: %v", fd, err)
		}
	}
}
