package images_test

import (
	"bytes"
	"errors"
	"math"
	"testing"
	"testing/iotest"
	"testing/quick"

	ipcvar "github.com/checkpoint-restore/go-criu/v7/crit/images/ipc-var"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/ipc-cr/ipc-cr/images"
)

// varsMagic opens an ipcns-var image, as CRIU's criu/include/magic.h has it.
const varsMagic = "\x19\x43\x56\x54\x07\x50\x11\x53"

func varsImage(t testing.TB, v *images.Vars) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := images.WriteVars(&b, v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Every field lands in the field of the same name, there and back.
func TestVarsRoundTrip(t *testing.T) {
	err := quick.Check(func(v images.Vars) bool {
		if len(v.Sem) == 0 {
			v.Sem = nil
		}
		image := varsImage(t, &v)
		want := append([]byte(varsMagic), wantRecord(t, &ipcvar.IpcVarEntry{
			SemCtls: v.Sem, MsgCtlmax: &v.MsgMax, MsgCtlmnb: &v.MsgMnb, MsgCtlmni: &v.MsgMni, AutoMsgmni: &v.AutoMsgMni,
			ShmCtlmax: &v.ShmMax, ShmCtlall: &v.ShmAll, ShmCtlmni: &v.ShmMni, ShmRmidForced: &v.ShmRmidForced,
			MqQueuesMax: &v.MqQueuesMax, MqMsgMax: &v.MqMsgMax, MqMsgsizeMax: &v.MqMsgsizeMax,
			MqMsgDefault: v.MqMsgDefault, MqMsgsizeDefault: v.MqMsgsizeDefault,
			MsgNextId: v.MsgNextID, SemNextId: v.SemNextID, ShmNextId: v.ShmNextID,
		})...)
		got, err := images.ReadVars("the image", bytes.NewReader(image))
		return err == nil && bytes.Equal(image, want) && cmp.Equal(&v, got)
	}, nil)
	if err != nil {
		t.Error(err)
	}
}

func TestVarsRefused(t *testing.T) {
	whole := varsImage(t, &images.Vars{Sem: []uint32{1, 2, 3, 4}})
	body := whole[12:]
	for name, image := range map[string][]byte{
		"a queue image":     []byte(msgMagic),
		"record of 4 GiB":   join([]byte(varsMagic), u32(math.MaxUint32), body),
		"a byte behind":     join(whole, []byte{0}),
		"two records":       join(whole, whole[8:]),
		"no record":         []byte(varsMagic),
		"empty record":      join([]byte(varsMagic), u32(0)),
		"no protobuf":       join([]byte(varsMagic), u32(3), []byte{255, 255, 255}),
		"larger than known": join([]byte(varsMagic), u32(1<<16), make([]byte, 1<<16)),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := images.ReadVars("the image", bytes.NewReader(image))
			checkFault(t, err, -1)
		})
	}
	for cut := range whole {
		_, err := images.ReadVars("the image", bytes.NewReader(whole[:cut]))
		checkFault(t, err, -1)
	}
	for i := range whole {
		for bit := range 8 {
			flipped := bytes.Clone(whole)
			flipped[i] ^= 1 << bit
			if _, err := images.ReadVars("the image", bytes.NewReader(flipped)); err != nil || i < 12 {
				checkFault(t, err, -1)
			}
		}
	}
}

func TestVarsMissingField(t *testing.T) {
	zero := new(uint32)
	entry := &ipcvar.IpcVarEntry{MsgCtlmax: zero} // CRIU wants more
	body, err := proto.MarshalOptions{AllowPartial: true}.Marshal(entry)
	if err != nil {
		t.Fatal(err)
	}
	_, err = images.ReadVars("the image", bytes.NewReader(join([]byte(varsMagic), record(body))))
	checkFault(t, err, 8)
}

func TestVarsUnknownFieldAndOrder(t *testing.T) {
	want := &images.Vars{Sem: []uint32{1, 2, 3, 4}, MsgMax: 5}
	body := varsImage(t, want)[12:]
	image := join([]byte(varsMagic), record(varint(2, 1), sub(1000, []byte("new")), body))
	got, err := images.ReadVars("the image", iotest.OneByteReader(bytes.NewReader(image)))
	if diff := diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestVarsPassesErrors(t *testing.T) {
	whole := varsImage(t, &images.Vars{})
	source := iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(whole)))
	if _, err := images.ReadVars("the image", source); !errors.Is(err, iotest.ErrTimeout) || errors.Is(err, images.ErrFormat) {
		t.Errorf("got %v", err)
	}
	if spent := allocated(func() { images.ReadVars("the image", &zeros{r: bytes.NewReader(whole)}) }); spent > 1<<20 {
		t.Errorf("%d bytes allocated for an endless image", spent)
	}
	if err := images.WriteVars(&failingWriter{room: 9}, &images.Vars{}); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("write: %v", err)
	}
}
