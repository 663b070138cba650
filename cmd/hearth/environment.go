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

// withEnvironment appends to the arguments what variables say of flags that may be repeated, unless the arguments set
// the flag. Kingpin reads all other variables; it would take a list for one value unless each value had its own line.
func withEnvironment(app *kingpin.Application, args []string) []string {
	flags := flagsByName(app, selected(app, args))
	out := args
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		text := os.Getenv(envar(name))
		if text == "" || !repeatable(flags[name]) || onCommandLine(args, name) {
			continue
		}
		for _, v := range listed(text) {
			out = append(out, "--"+name+"="+v)
		}
	}
	return out
}

// listed are the values in the text of a variable. Each has its own line; a single line has values between commas,
// and a comma within double quotes belongs to its value.
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

// warnUnknownVariables logs each variable that begins with HEARTH_ and sets no flag, and the variable that was probably
// meant.
func (p *process) warnUnknownVariables(app *kingpin.Application) {
	ours := variables(app)
	for _, name := range unknownVariables(ours, os.Environ()) {
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

// unknownVariables are the variables that begin with HEARTH_ and set no flag of any command: probably misspelt names.
func unknownVariables(ours map[string]bool, environ []string) []string {
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
