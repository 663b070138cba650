package gossip

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hearth-metrics/hearth/internal/pages"
	"github.com/hearth-metrics/hearth/ring"
)

// sizingRows are the rows of a table of docs/operate/sizing.md.
func sizingRows(t *testing.T, head string) [][]string {
	t.Helper()
	all, err := pages.Read("../..")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(p pages.Page) bool { return strings.HasSuffix(p.Path, "sizing.md") })
	if rows := all[i].Rows(head); len(rows) > 3 {
		return rows
	}
	t.Fatalf("docs/operate/sizing.md has no table that begins with %q", head)
	return nil
}

// TestSizingShares: the shares of receivers on the page are those of rings with these zones, to 3 % on average, and
// hardly a receiver has more than the fifth on top that the page tells people to add.
func TestSizingShares(t *testing.T) {
	for _, row := range sizingRows(t, "receivers in each zone") {
		var members []ring.TokenMember
		var zones []int // by member
		for zone, n := range strings.Split(row[0], ", ") {
			receivers, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(err)
			}
			for range receivers {
				members = append(members,
					ring.TokenMember{Member: ring.Member{ID: fmt.Sprint("r", len(members)), Zone: fmt.Sprint("z", zone)}})
				zones = append(zones, zone)
			}
		}
		const rings = 30
		average, most := make([]float64, zones[len(zones)-1]+1), make([]float64, zones[len(zones)-1]+1)
		for range rings {
			for i := range members {
				members[i].Tokens = randomTokens(numTokens)
			}
			shares := ring.Shares(members, 3)
			for i, m := range members {
				share := 100 * shares[m.ID]
				average[zones[i]] += share / rings / float64(strings.Count(fmt.Sprint(zones), fmt.Sprint(zones[i])))
				most[zones[i]] = max(most[zones[i]], share)
			}
		}
		for zone, text := range strings.Split(row[1], ", ") {
			want, err := strconv.ParseFloat(strings.TrimSuffix(text, " %"), 64)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(average[zone]-want) > 3 || most[zone] > 1.3*want {
				t.Errorf("%s: a receiver of zone %d has %.1f %% on average and %.1f %% at most; the page says %s", row[0], zone+1,
					average[zone], most[zone], text)
			}
		}
	}
}

// TestSizingExample reckons the rows of the example by the formulas of the page.
func TestSizingExample(t *testing.T) {
	round := func(x float64) string { return strconv.FormatFloat(x, 'g', 2, 64) }
	for _, row := range sizingRows(t, "servers") {
		servers, err := strconv.ParseFloat(strings.ReplaceAll(row[0], ",", ""), 64)
		if err != nil {
			t.Fatal(err)
		}
		const gib = 1 << 30
		active := servers * 200_000
		samples, created := active/15, active/86_400
		head := active + created*10_800
		inZone := 2.
		for head/(inZone-1) > 4e6 {
			inZone++
		}
		m := 3 * inZone
		w, wLost, hLost := samples/inZone, samples/(inZone-1), head/(inZone-1)
		want := []string{
			row[0],
			fmt.Sprintf("%.4g M", active/1e6),
			fmt.Sprintf("%.0f k", samples/1e3),
			fmt.Sprintf("%.0f", m),
			fmt.Sprintf("%.1f M", hLost/1e6),
			fmt.Sprintf("%.0f GiB", math.Ceil((gib+4.5*1024*hLost*1.2)/gib)),
			fmt.Sprintf("%.2f", (1.6*samples+33*created)/1e6/m),
			fmt.Sprintf("%.0f GB", (wLost*(4*3600*9.4+86_400*1.9)*1.2+gib)/1e9),
			fmt.Sprintf("%.0f Mbit/s", (samples/m*29+w*(m-1)/m*10)*8/1e6),
			fmt.Sprintf("%s s", round(min(300, 128<<20/(640*samples/m)))),
			fmt.Sprintf("%.0f GB", 3*samples*1.9*86_400/1e9),
		}
		if !slices.Equal(row, want) {
			t.Errorf("the page has | %s |\nand should have | %s |", strings.Join(row, " | "), strings.Join(want, " | "))
		}
	}
}
