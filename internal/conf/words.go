package conf

import (
	"fmt"
	"slices"
	"strings"
)

// Suggest is the end of a sentence about word, which is not one of known. It names the word of known that was probably
// meant; where none is near and known is short, it names all of them. Otherwise it is "".
func Suggest(word string, known []string) string {
	if near := Nearest(word, known); near != "" {
		return fmt.Sprintf("; did you mean %s?", near)
	}
	const few = 12
	if n := len(known); n == 0 || n > few {
		return ""
	}
	all := slices.Sorted(slices.Values(known))
	return "; known are " + strings.Join(all, ", ")
}

// Nearest is the word of known that word probably stands for, "" when none is near. A near word differs in at most a
// third of its characters; characters that are missing at the end count little.
func Nearest(word string, known []string) string {
	const long = 200
	if word == "" || len(word) > long {
		return ""
	}
	best, bestCost := "", 0
	w := plainWord(word)
	for _, k := range known {
		whole, start := distance(w, plainWord(k))
		ok := whole*3 <= max(len(w), len(k)) || len(w) >= 3 && start*4 <= len(w)
		cost := 1000*min(whole, start+1) + whole
		if ok && (best == "" || cost < bestCost || cost == bestCost && k < best) {
			best, bestCost = k, cost
		}
	}
	return best
}

// plainWord is w without differences that people overlook.
func plainWord(w string) string {
	return strings.NewReplacer("-", "_", ".", "_", " ", "_").Replace(strings.ToLower(w))
}

// distance is how many characters of a must be changed, added, removed or swapped with their neighbour to get b.
// whole is the distance to all of b, start the distance to the nearest beginning of b.
func distance(a, b string) (whole, start int) {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)], slices.Min(last)
}
