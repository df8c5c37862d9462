package main

import (
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
	if len(c.Callers) == 0 {
		if err := printf("nobody has asked yet\n"); err != nil {
			return err
		}
	} else if err := callersTable(c.Callers); err != nil {
		return err
	}
	if c.Refused == 0 {
		return nil
	}
	return printf("%d connections of other users were refused\n", c.Refused)
}

func callersTable(list []ipc.Caller) error {
	rows := [][]string{{"PROGRAM", "UNIT", "LAST PROCESS", "LAST SEEN", "ASKED FOR"}}
	for _, c := range list {
		rows = append(rows, []string{
			dash(oneWord(c.Executable)), dash(oneWord(c.Unit)), strconv.Itoa(c.PID), span(time.Since(c.LastSeen)) + " ago", counts(c.Requests),
		})
	}
	return printTable(rows...)
}

// counts are the kinds of request, the most frequent first.
func counts(requests map[string]uint64) string {
	kinds := slices.Sorted(maps.Keys(requests))
	slices.SortStableFunc(kinds, func(a, b string) int {
		switch {
		case requests[a] > requests[b]:
			return -1
		case requests[a] < requests[b]:
			return 1
		}
		return 0
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
