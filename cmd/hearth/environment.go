package main

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/internal/conf"
)

// envar is the name of the environment variable that sets a flag.
func envar(flag string) string {
	return "HEARTH_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(flag))
}

// withEnvironment puts the values of variables that set repeatable flags behind the arguments, unless these set the
// flag. All other variables are left to kingpin, which takes a list for one value unless it has a value a line.
func withEnvironment(app *kingpin.Application, args []string) []string {
	flags := flagsByName(app, selected(app, args))
	out := args
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		text := os.Getenv(envar(name))
		cumulative, ok := flags[name].Value.(interface{ IsCumulative() bool })
		if text == "" || !ok || !cumulative.IsCumulative() || onCommandLine(args, name) {
			continue
		}
		for _, v := range listed(text) {
			out = append(out, "--"+name+"="+v)
		}
	}
	return out
}

// listed are the values in the text of a variable: one a line, or, in a single line, separated by commas that are not
// within double quotes.
func listed(text string) []string {
	var values []string
	quoted := false
	lines := strings.Contains(strings.TrimSpace(text), "\n")
	for _, v := range strings.FieldsFunc(text, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == '\n' || r == ',' && !lines && !quoted
	}) {
		if v = strings.TrimSpace(v); v != "" {
			values = append(values, v)
		}
	}
	return values
}

// serviceLink is what Kubernetes sets in each container for a service that is called hearth, or hearth-something.
var serviceLink = regexp.MustCompile(`_SERVICE_(HOST|PORT(_.*)?)$|_PORT(_[0-9]+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?$`)

// warnStrangers logs the variables that begin like ours and set nothing, with the one that was most likely meant.
func (p *process) warnStrangers(app *kingpin.Application) {
	ours := variables(app)
	for _, name := range strangers(ours, os.Environ()) {
		attrs := []any{"variable", name}
		if near := conf.Nearest(name, slices.Collect(maps.Keys(ours))); near != "" {
			attrs = append(attrs, "did_you_mean", near)
		}
		p.log.Warn("an environment variable sets no flag of Hearth", attrs...)
	}
}

// variables are the names of all variables that set a flag of some command.
func variables(app *kingpin.Application) map[string]bool {
	ours := map[string]bool{}
	for name := range flagsByName(app, "") {
		ours[envar(name)] = true
	}
	return ours
}

// strangers are the variables that begin like ours and set no flag of any command: most likely a name with a mistake in
// it.
func strangers(ours map[string]bool, environ []string) []string {
	var names []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "HEARTH_") && !ours[name] && !serviceLink.MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
