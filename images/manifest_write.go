package images

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// WriteManifest writes the JSON file. What m has in Objects is ignored, details
// is written in its place: it must be valid JSON.
func WriteManifest(w io.Writer, m *Manifest, details map[string]Details) error {
	buf := bufio.NewWriter(w) // which keeps the first error for Flush
	fmt.Fprintf(buf, "{\n  \"format\": %d,\n  \"ns_number\": %d,\n  \"created\": %q,\n  \"boottime_ns\": %d,\n",
		m.Format, m.Number, m.Created.Format(time.RFC3339Nano), m.Boottime)
	writeSource(buf, &m.Namespace)
	fmt.Fprintf(buf, "  \"method\": %s,\n  \"files\": [", quote(m.Method))
	for i, f := range m.Files {
		fmt.Fprintf(buf, "%s\n    {\"name\": %s, \"size\": %d, \"crc32c\": \"%s\"}", comma(i), quote(f.Name), f.Size, f.CRC32C)
	}
	fmt.Fprint(buf, "\n  ],\n")
	writeWarnings(buf, m.Warnings)
	fmt.Fprint(buf, "  \"objects\": {")
	for i, kind := range sortedKeys(details) {
		fmt.Fprintf(buf, "%s\n    %s: ", comma(i), quote(kind))
		for _, piece := range details[kind] {
			_, _ = buf.Write(piece)
		}
	}
	fmt.Fprint(buf, "\n  }\n}\n")
	return buf.Flush()
}

func writeSource(w io.Writer, s *Source) {
	fmt.Fprintf(w, "  \"namespace\": {\"boot_id\": %s, ", quote(s.BootID))
	if s.ID != 0 {
		fmt.Fprintf(w, "\"ns_id\": %d, ", s.ID)
	}
	fmt.Fprintf(w, "\"inode\": %d", s.Inode)
	if len(s.Tasks) > 0 {
		fmt.Fprint(w, ", \"tasks\": [")
		for i, task := range s.Tasks {
			fmt.Fprintf(w, "%s{\"pid\": %d, \"start_time\": %d}", comma(i), task.PID, task.Start)
		}
		fmt.Fprint(w, "]")
	}
	fmt.Fprint(w, "},\n")
}

// writeWarnings leaves the field out where there is none.
func writeWarnings(w io.Writer, warnings []string) {
	if len(warnings) == 0 {
		return
	}
	fmt.Fprint(w, "  \"warnings\": [")
	for i, text := range boundWarnings(warnings) {
		fmt.Fprintf(w, "%s\n    %s", comma(i), quote(text))
	}
	fmt.Fprint(w, "\n  ],\n")
}

// boundWarnings returns them as ReadManifest takes them.
func boundWarnings(warnings []string) []string {
	var bounded []string
	for i, text := range warnings {
		if more := len(warnings) - i; i == MaxWarnings-1 && more > 1 {
			return append(bounded, fmt.Sprintf("... (%d more, left out)", more))
		}
		text = strings.ToValidUTF8(text, "\uFFFD")
		if note := fmt.Sprintf("... (cut, %d bytes in all)", len(text)); len(text) > MaxWarning {
			end := MaxWarning - len(note)
			for !utf8.RuneStart(text[end]) {
				end--
			}
			text = text[:end] + note
		}
		bounded = append(bounded, text)
	}
	return bounded
}

func comma(i int) string {
	if i == 0 {
		return ""
	}
	return ","
}

// quote writes a string. Mostly it is one of ours, a name or a number in
// hexadecimal, for which Go's quoting is JSON's.
func quote(s string) string {
	if plain := `"` + s + `"`; strconv.QuoteToASCII(s) == plain {
		return plain
	}
	text, _ := json.Marshal(s) // a string is always JSON
	return string(text)
}
