package config

import (
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// The decoder takes an integer for a text, overlooks the case of keys, and does
// not tell the key of a wrong value. So the document is walked over as well.

// place is a key or a value in the document.
type place struct {
	key          string // dotted
	line, column int
	kind         unstable.Kind // of the value
	element      bool          // of a list
}

type walker struct {
	parser unstable.Parser
	visit  func(place)
}

// walk visits every place up to the first mistake in syntax.
func walk(content []byte, visit func(place)) {
	w := &walker{visit: visit}
	w.parser.Reset(content)
	var table []string
	for w.parser.NextExpression() {
		node := w.parser.Expression()
		switch node.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = w.table(node)
		case unstable.KeyValue:
			w.value(table, node)
		}
	}
}

func (w *walker) table(node *unstable.Node) []string {
	table, first := w.key(nil, node)
	w.tell(place{key: strings.Join(table, "."), kind: node.Kind}, first)
	return table
}

// key returns the dotted key of a table or a value, and its first part's node.
func (w *walker) key(table []string, node *unstable.Node) (parts []string, first *unstable.Node) {
	parts = slices.Clone(table)
	for it := node.Key(); it.Next(); {
		if first == nil {
			first = it.Node()
		}
		parts = append(parts, string(it.Node().Data))
	}
	return parts, first
}

func (w *walker) value(table []string, node *unstable.Node) {
	key, first := w.key(table, node)
	name := strings.Join(key, ".")
	whole := place{key: name, kind: node.Value().Kind}
	w.tell(whole, first)
	w.tell(whole, node.Value())
	if whole.kind != unstable.Array {
		return
	}
	for it := node.Value().Children(); it.Next(); {
		w.tell(place{key: name, kind: it.Node().Kind, element: true}, it.Node())
	}
}

// tell visits a place that is where the node is.
func (w *walker) tell(p place, node *unstable.Node) {
	at := w.parser.Shape(node.Raw).Start
	p.line, p.column = at.Line, at.Column
	w.visit(p)
}

// keyAt is the dotted key of the value that begins there, or "".
func keyAt(content []byte, line, column int) (found string) {
	walk(content, func(p place) {
		if p.line == line && p.column == column {
			found = p.key
		}
	})
	return found
}
