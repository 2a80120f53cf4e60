package eventlog

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sample() Entry {
	return Entry{
		Time: time.Date(2026, 11, 30, 19, 26, 1, 250e6, time.UTC), Action: "post-dump", Container: strings.Repeat("4f", 32),
		Init: 4242, CRIU: 4711, Dir: "/tmp/<images> & more", Took: 7 * time.Millisecond,
		Done:     []string{"3 queues, 17 messages verified", "2 tasks thawed"},
		Warnings: []string{"the first", "the \"second\""}, Error: "and yet it failed",
	}
}

func TestWriteAndRead(t *testing.T) {
	dir := openTemp(t)
	if entries, unreadable := read(t, dir); len(entries) > 0 || unreadable > 0 {
		t.Errorf("%v, %d lines in a log that is not there", entries, unreadable)
	}
	var want []Entry
	for i := range 3 {
		e := sample()
		e.Init = i + 1
		if err := Write(dir, e); err != nil {
			t.Fatal(err)
		}
		want = append(want, e)
	}
	entries, unreadable := read(t, dir)
	if diff := cmp.Diff(want, entries); diff != "" || unreadable != 0 {
		t.Errorf("%d unreadable\n%s", unreadable, diff)
	}
	info, err := os.Lstat(dir.Join(FileName))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v: want mode 0600", info, err)
	}
}

// Write says when, to a millisecond.
func TestTime(t *testing.T) {
	dir := openTemp(t)
	before := time.Now().Truncate(time.Millisecond)
	if err := Write(dir, Entry{Action: "pre-dump", Error: "x"}); err != nil {
		t.Fatal(err)
	}
	entries, _ := read(t, dir)
	if len(entries) != 1 || entries[0].Time.Before(before) || entries[0].Time.After(time.Now()) || entries[0].Time.Location() != time.UTC {
		t.Errorf("%v, want after %v, in UTC", entries, before)
	}
}

// Where nothing was said nothing is written, and no file made.
func TestSilent(t *testing.T) {
	dir := openTemp(t)
	if err := Write(dir, Entry{Action: "pre-dump", Init: 1, Took: 1}); err != nil {
		t.Fatal(err)
	}
	if names, err := dir.Names(); err != nil || len(names) > 0 {
		t.Errorf("%q, %v", names, err)
	}
	if err := Write(nil, sample()); err != nil {
		t.Errorf("without a state directory: %v", err)
	}
}

// Texts of containers are printable and bounded, whatever they are; what is left out
// is said.
func TestHostileTexts(t *testing.T) {
	dir := openTemp(t)
	e := Entry{
		Action: "post-dump\x1b[2J", Container: "a\tb", Dir: "/tmp/\x07\xff",
		Error: "one\ntwo\x1b]0;title\x07 \u202egnp.exe \u009b31m é日 \xf0", Warnings: []string{strings.Repeat("é", 600)},
	}
	for range 500 {
		e.Done = append(e.Done, strings.Repeat("\x1b", 100))
	}
	if err := Write(dir, e); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir.Join(FileName)); err != nil || info.Size() > 32<<10 {
		t.Errorf("%v, %v: want at most 32 KiB", info, err)
	}
	entries, _ := read(t, dir)
	got := entries[0]
	if want := `one; two\x1b]0;title\a \u202egnp.exe \u009b31m é日 \xf0`; got.Error != want {
		t.Errorf("error %q, want %q", got.Error, want)
	}
	if got.Action != `post-dump\x1b[2J` || got.Container != `a\tb` || got.Dir != `/tmp/\a\xff` {
		t.Errorf("%+v", got)
	}
	if w := got.Warnings[0]; len(w) > maxText || !strings.HasPrefix(w, "éé") || !strings.HasSuffix(w, "é... (cut, 1200 bytes in all)") {
		t.Errorf("warning %q", w)
	}
	last := got.Done[len(got.Done)-1]
	if want := fmt.Sprintf("... (%d more, left out)", 501-len(got.Done)); len(got.Done) < 10 || last != want {
		t.Errorf("%d texts, the last %q, want %q", len(got.Done), last, want)
	}
	if size := len(strings.Join(got.Done, "")) + len(got.Error) + len(got.Warnings[0]); size > maxTexts {
		t.Errorf("%d bytes of text", size)
	}
}

// The error is what counts most: whatever else there is, it is kept.
func TestErrorIsKept(t *testing.T) {
	dir := openTemp(t)
	e := Entry{Action: "post-dump", Error: "the reason, " + strings.Repeat("at length ", 2000)}
	for range 1000 {
		e.Warnings = append(e.Warnings, strings.Repeat("w", 2000))
	}
	if err := Write(dir, e); err != nil {
		t.Fatal(err)
	}
	entries, _ := read(t, dir)
	if got := entries[0].Error; len(got) > maxError || !strings.HasPrefix(got, "the reason, at length") || !strings.HasSuffix(got, "... (cut, 20011 bytes in all)") {
		t.Errorf("%d bytes, %q", len(got), got)
	}
}

func TestEscape(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "",
		" plain (\"text\") \n":   `plain ("text")`,
		"two\nlines":             "two; lines",
		"back\\slash":            `back\slash`,
		"µs 12 é":                "µs 12 é",
		"\x00\r\x7f\u00a0\ufeff": `\x00\r\x7f\u00a0\ufeff`,
		"\xc3":                   `\xc3`,
		"\ufffd":                 "\ufffd",
	} {
		got := Escape(text)
		if got != want || Escape(got) != got {
			t.Errorf("%q: %q, then %q, want %q", text, got, Escape(got), want)
		}
	}
}

func TestCut(t *testing.T) {
	long := strings.Repeat("日", 100)
	for most := range 310 {
		got := Cut(long, most)
		switch {
		case most >= len(long):
			if got != long {
				t.Errorf("%d: %q", most, got)
			}
		case !strings.HasSuffix(got, "... (cut, 300 bytes in all)"):
			t.Errorf("%d: %q does not say it", most, got)
		case len(got) > max(most, len("... (cut, 300 bytes in all)")) || strings.Contains(got, "\ufffd") || strings.ToValidUTF8(got, "") != got:
			t.Errorf("%d: %q", most, got)
		}
	}
}

// A writer that is killed in the middle takes no other's entry with it.
func TestTornEntry(t *testing.T) {
	dir := openTemp(t)
	whole := sample()
	record, err := whole.encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{string(record), string(record[:len(record)/2]), string(record), "\n{}\nnull\n[1]\n\"x\"\n{\"time\":1}\n{\"action\":\"x\"}\n"} {
		if err := dir.Append(FileName, []byte(part), MaxFile); err != nil {
			t.Fatal(err)
		}
	}
	entries, unreadable := read(t, dir)
	if diff := cmp.Diff([]Entry{whole, whole}, entries); diff != "" || unreadable != 7 {
		t.Errorf("%d lines unreadable, want 7\n%s", unreadable, diff)
	}
	if err := dir.Append(FileName, record[:len(record)-5], MaxFile); err != nil {
		t.Fatal(err)
	}
	if entries, unreadable := read(t, dir); len(entries) != 2 || unreadable != 7 {
		t.Errorf("with one under way: %d entries, %d lines unreadable", len(entries), unreadable)
	}
}

// An entry of a later version, with fields that are not known here, is read.
func TestLaterVersion(t *testing.T) {
	dir := openTemp(t)
	text := `{"time":"2026-11-30T19:26:01Z","action":"post-dump","new":{"x":1},"error":"\u001b[31mx"}` + "\n"
	if err := dir.Append(FileName, []byte(text), MaxFile); err != nil {
		t.Fatal(err)
	}
	entries, unreadable := read(t, dir)
	if len(entries) != 1 || unreadable != 0 || entries[0].Error != `\x1b[31mx` {
		t.Errorf("%+v, %d lines unreadable", entries, unreadable)
	}
}

// A tenant who checkpoints in a loop does not fill the file system, and the last
// entries are there.
func TestBounded(t *testing.T) {
	dir := openTemp(t)
	e := sample()
	e.Error = strings.Repeat("x", maxError)
	for i := range 600 {
		e.Init = i + 1
		if err := Write(dir, e); err != nil {
			t.Fatal(err)
		}
	}
	var size int64
	files, err := os.ReadDir(dir.Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		info, err := file.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > 2*MaxFile {
		t.Errorf("%d bytes in %d files", size, len(files))
	}
	entries, _ := read(t, dir)
	if len(entries) < 100 || entries[len(entries)-1].Init != 600 {
		t.Fatalf("%d entries, the last of %d", len(entries), entries[len(entries)-1].Init)
	}
	for i, e := range entries {
		if e.Init != 600-len(entries)+i+1 {
			t.Fatalf("entry %d of %d is %d", i, len(entries), e.Init)
		}
	}
}
