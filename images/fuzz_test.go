package images_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/images"
)

// What is read fine can be written again, and reads the same then.
func FuzzReader(f *testing.F) {
	for _, image := range criuImages(f, images.MsgKind) {
		f.Add(image)
	}
	f.Add(join([]byte(msgMagic), entry(1), record(varint(2, 3), varint(1, 1<<40), sub(9, nil)), pattern(8)))
	f.Fuzz(func(t *testing.T, image []byte) {
		queues, err := decodeBoth(t, image)
		if err != nil {
			checkFault(t, err, -1)
			return
		}
		canonical := encode(t, queues)
		if len(canonical) > len(image)+64*len(queues) {
			t.Errorf("%d bytes became %d", len(image), len(canonical))
		}
		again, err := decodeBoth(t, canonical)
		if diff := diff(queues, again); diff != "" || err != nil {
			t.Errorf("%v\n%s", err, diff)
		}
		part := bytes.Clone(image[8:])
		if err := sendAll(part); err != nil || !bytes.Equal(part, image[8:]) {
			t.Errorf("%v, or the image was written over", err)
		}
	})
}

// sendAll reads a part of an image the way a restore does.
func sendAll(part []byte) error {
	var r images.Reader
	r.ResetBytes("the image", part, 8)
	for {
		if _, err := r.Queue(); err != nil {
			if err.Error() == "EOF" {
				err = nil
			}
			return err
		}
		for {
			if _, err := r.Msgbufs(make([][]byte, 3)); err != nil {
				break // Queue tells of it
			}
		}
	}
}

func FuzzReadVars(f *testing.F) {
	for _, image := range criuImages(f, images.VarKind) {
		f.Add(image)
	}
	n := uint32(7)
	f.Add(varsImage(f, &images.Vars{MsgNextID: &n, SemNextID: &n, ShmNextID: &n}))
	f.Fuzz(func(t *testing.T, image []byte) {
		vars, err := images.ReadVars("the image", bytes.NewReader(image))
		if err != nil {
			checkFault(t, err, -1)
			return
		}
		again, err := images.ReadVars("the image", bytes.NewReader(varsImage(t, vars)))
		if diff := diff(vars, again); diff != "" || err != nil {
			t.Errorf("%v\n%s", err, diff)
		}
	})
}

// What is accepted is JSON to encoding/json too, and can be written again.
func FuzzReadManifest(f *testing.F) {
	f.Add(manifestText(f, sampleManifest(), generation(1).details()))
	f.Add(manifestText(f, generation(1).manifest(1), map[string]images.Details{"a": {[]byte(`[-0.5e-7, "\ud800", {}, true, null]`)}, "b": {[]byte("{}")}}))
	f.Add(`{"objects":{},"format":1}`)
	f.Add(`{"Objects":{"a":1},"format":1,"\u006fbjects":null}`)
	f.Fuzz(func(t *testing.T, text string) {
		m, err := images.ReadManifest("the image", strings.NewReader(text))
		if err != nil {
			checkFault(t, err, -1)
			return
		}
		if !json.Valid([]byte(text)) {
			t.Fatalf("not JSON: %q", text)
		}
		details := map[string]images.Details{}
		for kind, value := range m.Objects {
			if !json.Valid(value) {
				t.Errorf("%q is not JSON: %q", kind, value)
			}
			if strings.Trim(kind, "abcdefghijklmnopqrstuvwxyz") != "" {
				return // WriteManifest is for the kinds that there are
			}
			details[kind] = images.Details{value}
		}
		again, err := images.ReadManifest("the image", strings.NewReader(manifestText(t, m, details)))
		if m.Objects == nil {
			m.Objects = map[string]json.RawMessage{}
		}
		if diff := diff(m, again); diff != "" || err != nil {
			t.Errorf("%v\n%s", err, diff)
		}
	})
}

func FuzzParseFileName(f *testing.F) {
	for _, name := range []string{"ipcns-msg-1.img", "ipcns-var-01.img", "ipcns-shm-4294967296.img", "ipc-cr-1.json", "ipc-cr--1.json", "-.img"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if kind, n, ok := images.ParseFileName(name); ok && images.FileName(kind, n) != name {
			t.Errorf("%q is %q, %d", name, kind, n)
		}
		if n, ok := images.ParseManifestName(name); ok && images.ManifestName(n) != name {
			t.Errorf("%q is %d", name, n)
		}
	})
}

// What is accepted differs afterwards in that number alone: back to the old one
// gives a file that means the same, and again the very same.
func FuzzInventory(f *testing.F) {
	for name := range trees {
		f.Add(must[[]byte](nil)(os.ReadFile("testdata/criu/"+name+"/inventory.img")), uint32(10))
	}
	dir := copyTree(f, "tree")
	path := dir.Path() + "/inventory.img"
	put := func(t *testing.T, image []byte) {
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set := func(t *testing.T, n uint32) []byte {
		if err := dir.SetInventoryIPCNumber(n); err != nil {
			t.Fatalf("set %d: %v", n, err)
		}
		if got, err := dir.InventoryIPCNumber(); got != n || err != nil {
			t.Fatalf("%d, %v, want %d", got, err, n)
		}
		return must[[]byte](t)(os.ReadFile(path))
	}
	f.Fuzz(func(t *testing.T, image []byte, n uint32) {
		if len(image) > 60000 {
			return // it may grow over the bound
		}
		put(t, image)
		old, err := dir.InventoryIPCNumber()
		if bad, ok := errors.AsType[*images.FormatError](err); err != nil && (!ok || bad.Offset < 0 || bad.Offset > int64(len(image))) {
			t.Fatalf("%d bytes: %v", len(image), err)
		}
		if err != nil || n == 0 {
			return
		}
		changed := set(t, n)
		if len(changed) > len(image)+5 {
			t.Errorf("%d bytes became %d", len(image), len(changed))
		}
		back := set(t, old)
		set(t, n)
		if again := set(t, old); !bytes.Equal(again, back) {
			t.Errorf("%x became %x", back, again)
		}
	})
}
