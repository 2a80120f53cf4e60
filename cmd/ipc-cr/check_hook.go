package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/ipc-cr/ipc-cr/plugin/criuconf"
)

func hooksText(w io.Writer, hooks []criuconf.Hook) {
	for _, h := range hooks {
		if h.InForce {
			fmt.Fprintf(w, "yes  hook of %s: %s line %d\n", h.Runtime, h.File, h.Line)
		} else {
			fmt.Fprintf(w, "no   hook of %s: %s\n", h.Runtime, h.Detail)
		}
		switch {
		case h.Remedy == "":
		case h.InForce:
			fmt.Fprintf(w, "     %s; remedy: %s\n", h.Detail, h.Remedy)
		default:
			fmt.Fprintf(w, "     remedy: %s\n", h.Remedy)
		}
	}
}

func frontsText(w io.Writer, fronts []criuconf.Front) {
	for _, f := range fronts {
		switch {
		case !f.InFront:
			fmt.Fprintf(w, "no   in front of criu for %s: %s\n     remedy: %s\n", f.Of, f.Detail, f.Remedy)
			continue
		case f.Remedy != "":
			fmt.Fprintf(w, "yes  in front of criu for %s: %s, before %s\n     %s; remedy: %s\n", f.Of, f.Place, f.CRIU, f.Detail, f.Remedy)
			continue
		}
		fmt.Fprintf(w, "yes  in front of criu for %s: %s, before %s\n", f.Of, f.Place, f.CRIU)
		if f.Detail != "" {
			fmt.Fprintf(w, "     %s\n", f.Detail)
		}
	}
}

func settingsText(w io.Writer, s criuconf.Settings) {
	switch {
	case !s.OK:
		fmt.Fprintf(w, "no   settings: %s\n", s.Detail)
		return
	case s.Exists:
		fmt.Fprintf(w, "yes  settings: %s\n", s.File)
	default:
		fmt.Fprintf(w, "yes  settings: the defaults, there is no %s\n", s.File)
	}
	v := s.Values
	limit := "none"
	if v.NeighboursMax > 0 {
		limit = v.NeighboursMax.String()
	}
	fmt.Fprintf(w, "     neighbours %s, neighbours_max %s, in_place %s, later %s, again %s, existing %s, method %s\n",
		v.Neighbours, limit, cmp.Or(v.InPlace, "not set"), v.Later, v.Again, v.Existing, v.Method)
	queues := "none"
	if len(v.HostQueues) > 0 {
		queues = strings.Join(v.HostQueues, ", ")
	}
	fmt.Fprintf(w, "     host_queues %s\n", queues)
}
