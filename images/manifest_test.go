package images_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ipc-cr/ipc-cr/images"
)

func sampleManifest() *images.Manifest {
	return &images.Manifest{
		Format: images.ManifestFormat, Number: 4294967295, Boottime: 1<<63 - 1, Method: "copy",
		Created: time.Date(2024, 2, 29, 1, 2, 3, 4, time.UTC),
		Namespace: images.Source{
			BootID: `a "quoted" <id>`, ID: 1<<64 - 1, Inode: 4026531839,
			Tasks: []images.SourceTask{{PID: 1, Start: 1<<64 - 1}, {PID: 4194304}},
		},
		Files:    []images.FileSum{{Name: "ipcns-msg-1.img", Size: 1 << 40, CRC32C: 0xbeef}, {Name: "ipcns-var-1.img"}},
		Warnings: []string{"", "task \"a\x1b[2J\u202e\"\n<é> \\"},
	}
}

func manifestText(t testing.TB, m *images.Manifest, details map[string]images.Details) string {
	t.Helper()
	var b bytes.Buffer
	if err := images.WriteManifest(&b, m, details); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestManifestRoundTrip(t *testing.T) {
	long := bytes.Repeat([]byte(" [1,{}]"), 20000)
	for name, details := range map[string]map[string]images.Details{
		"no kinds":   {},
		"one kind":   {"msgq": {[]byte("[]")}},
		"in pieces":  {"msgq": {[]byte(`[{"msqid": `), []byte(`-1.5e+3, "x": "\u00e9\n"},`), []byte(` null, true, false]`)}},
		"many kinds": {"zz": {[]byte("{}")}, "msgq": {[]byte("[1]")}, "a": {[]byte(`"text"`)}},
		"large":      {"msgq": {[]byte("[0"), bytes.ReplaceAll(long, []byte(" "), []byte(",")), []byte("]")}},
	} {
		t.Run(name, func(t *testing.T) {
			text := manifestText(t, sampleManifest(), details)
			if !json.Valid([]byte(text)) {
				t.Fatalf("not JSON:\n%.500s", text)
			}
			want := sampleManifest()
			want.Objects = map[string]json.RawMessage{}
			for kind, pieces := range details {
				want.Objects[kind] = bytes.Join(pieces, nil)
			}
			got, err := images.ReadManifest("the image", iotest.HalfReader(strings.NewReader(text)))
			if diff := diff(want, got); diff != "" || err != nil {
				t.Errorf("%v\n%s", err, diff)
			}
			checkManifestJSON(t, text, want)
		})
	}
}

// checkManifestJSON reads the text with nothing of ours.
func checkManifestJSON(t *testing.T, text string, want *images.Manifest) {
	t.Helper()
	got := &images.Manifest{}
	if err := json.Unmarshal([]byte(text), got); err != nil {
		t.Fatal(err)
	}
	if diff := diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestManifestText(t *testing.T) {
	m := generation(1).manifest(1)
	m.Files = []images.FileSum{{Name: "ipcns-var-1.img", Size: 82, CRC32C: 0xab}}
	const want = `{
  "format": 1,
  "ns_number": 1,
  "created": "1970-01-01T00:00:01Z",
  "boottime_ns": 1,
  "namespace": {"boot_id": "b", "ns_id": 1, "inode": 4026531839},
  "method": "copy",
  "files": [
    {"name": "ipcns-var-1.img", "size": 82, "crc32c": "000000ab"}
  ],
  "objects": {
    "msgq": [1]
  }
}
`
	if diff := diff(want, manifestText(t, m, generation(1).details())); diff != "" {
		t.Error(diff)
	}
}

// Warnings are written so that they can be read, whatever they are.
func TestManifestWarnings(t *testing.T) {
	for name, c := range map[string]struct{ write, want []string }{
		"none":      {nil, nil},
		"empty":     {[]string{}, nil},
		"not UTF-8": {[]string{"a\xff\xfeb"}, []string{"a\ufffdb"}},
		"as many as can be": {
			slices.Repeat([]string{strings.Repeat("x", images.MaxWarning)}, images.MaxWarnings),
			slices.Repeat([]string{strings.Repeat("x", images.MaxWarning)}, images.MaxWarnings),
		},
		"too many": {
			slices.Repeat([]string{"x"}, images.MaxWarnings+1),
			append(slices.Repeat([]string{"x"}, images.MaxWarnings-1), "... (2 more, left out)"),
		},
		"too long": {
			[]string{strings.Repeat("x", 5000), strings.Repeat("日", 2000)},
			[]string{strings.Repeat("x", 4068) + "... (cut, 5000 bytes in all)", strings.Repeat("日", 1356) + "... (cut, 6000 bytes in all)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := sampleManifest()
			m.Warnings = c.write
			text := manifestText(t, m, nil)
			got, err := images.ReadManifest("the image", strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := diff(c.want, got.Warnings); diff != "" {
				t.Error(diff)
			}
			if strings.Contains(text, "warnings") != (len(c.want) > 0) {
				t.Errorf("%.1000s", text)
			}
		})
	}
}

func TestManifestStrict(t *testing.T) {
	text := manifestText(t, sampleManifest(), map[string]images.Details{"msgq": {[]byte(`[{"msqid": 1}]`)}})
	replace := func(old, now string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("no %q in the sample", old)
		}
		return strings.Replace(text, old, now, 1)
	}
	for name, bad := range map[string]string{
		"empty":                  "",
		"null":                   "null",
		"a list":                 "[]",
		"no fields":              "{}",
		"unknown field":          replace(`"method"`, `"new": 1, "method"`),
		"unknown field in files": replace(`"size"`, `"new": 1, "size"`),
		"format 0":               replace(`"format": 1`, `"format": 0`),
		"format 2":               replace(`"format": 1`, `"format": 2`),
		"format of text":         replace(`"format": 1`, `"format": "1"`),
		"negative number":        replace("4294967295", "-1"),
		"large number":           replace("4294967295", "4294967296"),
		"short checksum":         replace("0000beef", "beef"),
		"long checksum":          replace("0000beef", "00000beef"),
		"signed checksum":        replace("0000beef", "-000beef"),
		"no checksum":            replace("0000beef", "checksum"),
		"no time":                replace("2024-02-29", "2023-02-29"),
		"text behind":            text + "{}",
		"brace behind":           text + "}",
		"NUL behind":             text + "\x00",
		"objects twice":          replace(`"objects": {`, `"objects": {}, "objects": {`),
		"kind twice":             replace(`"msgq": `, `"msgq": 1, "msgq": `),
		"objects a list":         replace(`"objects": {`, `"objects": [{`),
		"bad objects":            replace(`{"msqid": 1}`, `{"msqid": 01}`),
		"bad text":               replace(`{"msqid": 1}`, `"`+"\n"+`"`),
		"bad escape":             replace(`{"msqid": 1}`, `"\x41"`),
		"comma":                  replace(`{"msqid": 1}`, `{"msqid": 1},`),
		"many warnings":          replace(`"warnings": [`, `"warnings": [`+strings.Repeat(`"",`, 63)),
		"a long warning":         replace(`"warnings": [`, `"warnings": ["`+strings.Repeat("x", 4097)+`",`),
		"a long escaped warning": replace(`"warnings": [`, `"warnings": ["`+strings.Repeat(`\u0041`, 4097)+`",`),
		"warnings a text":        replace(`"warnings": [`, `"warnings": "x", "method": [`),
		"a warning a number":     replace(`"warnings": [`, `"warnings": [1,`),
		"warnings twice":         replace(`"warnings": [`, `"warnings": [], "warnings": [`),
		"endless warnings":       replace(`"warnings": [`, `"warnings": [`+strings.Repeat(`"",`, 1<<20)),
		"many files":             replace(`"files": [`, `"files": [`+strings.Repeat(`{"size": 1},`, 64)),
		"endless tasks":          replace(`"tasks": [`, `"tasks": [`+strings.Repeat(`{},`, 1<<20)),
		"nested":                 replace(`{"msqid": 1}`, strings.Repeat("[", 100000)),
		"nested, closed":         replace(`{"msqid": 1}`, strings.Repeat("[", 100000)+strings.Repeat("]", 100000)),
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			if spent := allocated(func() { _, err = images.ReadManifest("the image", strings.NewReader(bad)) }); spent > 10<<20+uint64(len(bad)) {
				t.Errorf("%d bytes allocated for %d", spent, len(bad))
			}
			checkFault(t, err, -1)
			if bad, ok := errors.AsType[*images.FormatError](err); ok && strings.Contains(bad.Reason, "\n") {
				t.Errorf("%q is not one line", err)
			}
		})
	}
	for cut := range len(strings.TrimSuffix(text, "\n")) {
		_, err := images.ReadManifest("the image", strings.NewReader(text[:cut]))
		checkFault(t, err, -1)
	}
	_, err := images.ReadManifest("the image", strings.NewReader(replace(`"objects"`, "\x01")))
	checkFault(t, err, int64(strings.Index(text, `"objects"`)))
	behind := replace("\n  }\n}\n", "\n  },\n  \"new\": 1\n}\n") // the decoder does not see the objects
	_, err = images.ReadManifest("the image", strings.NewReader(behind))
	if bad, ok := errors.AsType[*images.FormatError](err); !ok || bad.Offset < int64(len(text)-3) || bad.Offset > int64(len(behind)) {
		t.Errorf("unknown field at the end: %v", err)
	}
	_, err = images.ReadManifest("the image", strings.NewReader(text+" x"))
	checkFault(t, err, int64(len(text)+1))
}

func TestManifestIsBounded(t *testing.T) {
	source := &zeros{r: strings.NewReader(`{"objects": {"a": "`)}
	_, err := images.ReadManifest("the image", source)
	checkFault(t, err, images.MaxManifest)
	if source.given > images.MaxManifest+1<<20 {
		t.Errorf("%d bytes read", source.given)
	}
	text := manifestText(t, sampleManifest(), nil)
	text += strings.Repeat(" ", images.MaxManifest-len(text))
	if _, err := images.ReadManifest("the image", strings.NewReader(text)); err != nil {
		t.Errorf("the largest: %v", err)
	}
	_, err = images.ReadManifest("the image", strings.NewReader(text+" "))
	checkFault(t, err, images.MaxManifest)
}

func TestManifestPassesErrors(t *testing.T) {
	if _, err := images.ReadManifest("the image", iotest.ErrReader(iotest.ErrTimeout)); !errors.Is(err, iotest.ErrTimeout) || errors.Is(err, images.ErrFormat) {
		t.Errorf("got %v", err)
	}
	for n := range 300 {
		w := &failingWriter{room: n}
		if err := images.WriteManifest(w, sampleManifest(), nil); !errors.Is(err, iotest.ErrTimeout) {
			t.Errorf("write error after %d bytes: %v", n, err)
		}
	}
}

type failingWriter struct{ room int }

func (w *failingWriter) Write(b []byte) (int, error) {
	n := min(len(b), w.room)
	w.room -= n
	if n < len(b) {
		return n, iotest.ErrTimeout
	}
	return n, nil
}
