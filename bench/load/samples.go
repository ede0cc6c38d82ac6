package main

import "sort"

// samples are durations in nanoseconds.
type samples []int64

// A spread is what samples are told as, in milliseconds.
type spread struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (s samples) spread() spread {
	if len(s) == 0 {
		return spread{}
	}
	sort.Slice(s, func(i, j int) bool { return s[i] < s[j] })
	at := func(share float64) float64 { return float64(s[int(share*float64(len(s)-1))]) / 1e6 }
	return spread{P50: at(0.5), P99: at(0.99), Max: at(1)}
}

// tally counts what went wrong, by its reason.
type tally map[string]int

// The reasons that are told apart; a server may put numbers into them.
const mostReasons = 8

func (t tally) add(reason string) {
	if _, known := t[reason]; !known && len(t) >= mostReasons {
		reason = "others"
	}
	t[reason]++
}
