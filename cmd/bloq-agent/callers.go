package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"bloq-agent/ipc"
)

func showCallers(l link, asJSON bool) error {
	var c ipc.Callers
	if err := l.get(ipc.RouteCallers, nil, &c); err != nil {
		return err
	}
	if asJSON {
		return printJSON(c, "  ")
	}
	if err := callersTable(c); err != nil || c.Refused == 0 {
		return err
	}
	return printf("%d connections of other users were refused\n", c.Refused)
}

func callersTable(c ipc.Callers) error {
	if len(c.Callers) == 0 {
		return printf("nobody has asked yet\n")
	}
	rows := [][]string{{"PROGRAM", "UNIT", "LAST PROCESS", "LAST SEEN", "ASKED FOR", "LAST ANSWER", "HOST", "ON BEHALF OF"}}
	for _, p := range c.Callers {
		var last ipc.Request
		if i := slices.IndexFunc(c.Recent, func(q ipc.Request) bool { return q.Executable == p.Executable && q.Unit == p.Unit }); i >= 0 {
			last = c.Recent[i]
		}
		rows = append(rows, []string{
			dash(oneWord(p.Executable)), dash(oneWord(p.Unit)), strconv.Itoa(p.PID), span(time.Since(p.LastSeen)) + " ago",
			counts(p.Requests), dash(oneWord(last.Answer)), dash(oneWord(last.Host)), dash(oneWord(last.For)),
		})
	}
	return printTable(rows...)
}

// counts are the kinds of request, the most frequent first.
func counts(requests map[string]uint64) string {
	kinds := slices.SortedFunc(maps.Keys(requests), func(a, b string) int {
		return cmp.Or(cmp.Compare(requests[b], requests[a]), cmp.Compare(a, b))
	})
	for i, k := range kinds {
		kinds[i] = fmt.Sprintf("%s %d", k, requests[k])
	}
	return strings.Join(kinds, ", ")
}

// oneWord quotes a name that would look like two columns: its owner chose it.
func oneWord(s string) string {
	if strings.Contains(s, " ") {
		return strconv.Quote(s)
	}
	return s
}
