package main

import (
	"fmt"
	"slices"
	"strings"
	"text/template"

	"github.com/alecthomas/kingpin/v2"
)

// usageTemplate makes kingpin write our own help: short for hearth, by subject for a role.
const usageTemplate = `{{with .Context.SelectedCommand}}{{RoleHelp $.App .FullCommand}}` +
	`{{else}}{{ShortHelp .App}}{{end}}`

func useOwnHelp(app *kingpin.Application) {
	app.UsageTemplate(usageTemplate)
	app.UsageFuncs(template.FuncMap{"RoleHelp": roleHelp, "ShortHelp": shortHelp})
}

// helpWidth is the longest line of help, in characters.
const helpWidth = 100

// firstFlags are what everybody sets first, by role.
var firstFlags = map[string][]string{
	"all":     {"data-dir", "http-address", "objstore.config-file", "gossip.join", "receive.replication-factor"},
	"receive": {"tsdb.path", "objstore.config-file", "gossip.join", "receive.replication-factor", "tsdb.retention"},
	"distributor": {"gossip.join", "receive.replication-factor", "receive.hashrings-file", "http-address",
		"runtime-config.file"},
	"store": {"objstore.config-file", "data-dir", "gossip.join", "http-address", "grpc-address"},
	"query": {"gossip.join", "endpoint", "http-address", "query.replica-label", "query.timeout"},
}

// subject is a group of flags in the help of a role.
type subject struct {
	title string
	flags []string // names; one that ends in * stands for all that begin so
}

// subjects are the groups in their order. A flag is in the one that names it with most characters.
var subjects = []subject{
	{"Ports", []string{"http-*", "http.max-connections", "grpc-address", "grpc-advertise-address", "grpc-grace-period",
		"grpc-server-*",
		"remote-write.address"}},
	{"TLS and users", []string{"http.config", "auth.*", "grpc-server-tls-*", "grpc-client-*", "remote-write.server-tls-*",
		"remote-write.client-*", "gossip.tls-*", "receive.tenant-certificate-field", "query.tenant-certificate-field"}},
	{"Cluster: who else there is, and who keeps which copies", []string{"gossip.*", "ring.*", "drain*",
		"receive.replication-factor",
		"receive.hashrings*", "receive.local-endpoint", "receive.replica-header", "receive.thanos-rf2", "receive-forward-*",
		"receive.forward.*", "receive.grpc-*"}},
	{"Local data", []string{"data-dir", "tsdb.*", "label", "hash-func", "receive.max-tenants", "receive.tenant-label-name",
		"receive.replica-label-name"}},
	{"Bucket", []string{"objstore.*", "shipper.*", "sync-block-duration", "store.bucket-*",
		"ignore-deletion-marks-delay"}},
	{"Tenants and their limits", []string{"receive.tenant-*", "receive.default-tenant-id", "receive.split-*",
		"runtime-config.*", "limits.*",
		"receive.limits-*"}},
	{"Writes", []string{"receive.*", "distributor.*"}},
	{"Queries", []string{"query.*", "query-*", "endpoint*", "store.sd-*", "store.response-timeout"}},
	{"StoreAPI, for Thanos and between Hearth processes", []string{"store-api.*", "store.*"}},
	{"Configuration, log, process", []string{"config.*", "log.*", "help*", "version", "enable-*", "auto-*", "debug.*",
		"disable-admin-operations", "self-scrape.*"}},
}

// subjectOf is the title of a flag's group, "" when no group names it.
func subjectOf(flag string) string {
	best, title := 0, ""
	for _, s := range subjects {
		for _, pattern := range s.flags {
			prefix, open := strings.CutSuffix(pattern, "*")
			if n := len(prefix); n >= best && (flag == prefix || open && strings.HasPrefix(flag, prefix)) {
				best, title = n, s.title
				if flag == prefix {
					return title
				}
			}
		}
	}
	return title
}

// shortHelp is what hearth --help says.
func shortHelp(app *kingpin.ApplicationModel) string {
	var b strings.Builder
	fmt.Fprintf(&b, "usage: hearth [ROLE] [--FLAG=VALUE ...]\n\n%s\n\nRoles:\n", about)
	for _, c := range app.Commands {
		if !c.Hidden {
			writeWrapped(&b, fmt.Sprintf("  %-12s ", c.Name), c.Help)
		}
	}
	b.WriteString(examples)
	return b.String()
}

// roleHelp is what hearth ROLE --help says.
func roleHelp(app *kingpin.ApplicationModel, role string) string {
	var b strings.Builder
	for _, c := range app.Commands {
		if c.FullCommand == role {
			fmt.Fprintf(&b, "usage: hearth %s [--FLAG=VALUE ...]\n\n", role)
			writeWrapped(&b, "", c.Help)
		}
	}
	byName := map[string]*kingpin.FlagModel{}
	groups := map[string][]*kingpin.FlagModel{}
	var hidden []string
	for _, f := range flagModels(app, role) {
		switch {
		case f.Hidden && f.Name != "debug.name" && !strings.HasPrefix(f.Name, "help-") &&
			!strings.HasPrefix(f.Name, "completion-"):
			hidden = append(hidden, "--"+f.Name)
		case !f.Hidden:
			byName[f.Name] = f
			title := subjectOf(f.Name)
			groups[title] = append(groups[title], f)
		}
	}
	b.WriteString("\nWhat everybody sets first:\n")
	first := firstFlags[role]
	for _, name := range first {
		if f := byName[name]; f != nil {
			writeFlag(&b, f)
		}
	}
	for _, s := range append(subjects, subject{title: ""}) {
		writeGroup(&b, s.title, groups[s.title], first)
	}
	if len(hidden) > 0 {
		slices.Sort(hidden)
		b.WriteString("\nAccepted as Thanos has them, with a warning that says what to use instead, if anything:\n")
		writeWrapped(&b, "  ", strings.Join(hidden, " "))
	}
	return b.String()
}

func writeGroup(b *strings.Builder, title string, flags []*kingpin.FlagModel, first []string) {
	flags = slices.DeleteFunc(slices.Clone(flags), func(f *kingpin.FlagModel) bool {
		return slices.Contains(first, f.Name)
	})
	if len(flags) == 0 {
		return
	}
	if title == "" {
		title = "Other"
	}
	fmt.Fprintf(b, "\n%s:\n", title)
	for _, f := range flags {
		writeFlag(b, f)
	}
}

// writeFlag writes a flag with its default, its variable and its help.
func writeFlag(b *strings.Builder, f *kingpin.FlagModel) {
	name := "  --" + f.Name
	if f.Short != 0 {
		name = fmt.Sprintf("  -%c, --%s", f.Short, f.Name)
	}
	switch {
	case f.IsBoolFlag() && len(f.Default) > 0 && f.Default[0] == "true":
		name = "  --[no-]" + f.Name + " (on)"
	case f.IsBoolFlag():
	case len(f.Default) > 0 && f.Default[0] != "":
		name += "=" + strings.Join(f.Default, ",")
	case f.PlaceHolder != "":
		name += "=" + f.PlaceHolder
	default:
		name += "=" + strings.ToUpper(f.Name[strings.LastIndexAny(f.Name, ".-")+1:])
	}
	if repeatable(f) {
		name += " ..."
	}
	if f.Envar != "" {
		if pad := helpWidth - len(name) - len(f.Envar); pad > 1 {
			name += strings.Repeat(" ", pad) + f.Envar
		} else {
			name += "\n" + strings.Repeat(" ", max(0, helpWidth-len(f.Envar))) + f.Envar
		}
	}
	b.WriteString(name + "\n")
	writeWrapped(b, "      ", f.Help)
}

// writeWrapped writes text in lines of at most helpWidth behind prefix, which the lines after the first are indented
// by.
func writeWrapped(b *strings.Builder, prefix, text string) {
	line, indent := prefix, strings.Repeat(" ", len(prefix))
	empty := true
	for _, word := range strings.Fields(text) {
		if !empty && len(line)+1+len(word) > helpWidth {
			b.WriteString(line + "\n")
			line, empty = indent, true
		}
		if !empty {
			line += " "
		}
		line += word
		empty = false
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
}

const examples = `
Examples:
  hearth                                    A whole system in ./data, its page at http://localhost:10902.

  hearth --gossip.join=dns+hearth:7946 --receive.replication-factor=3 --objstore.config-file=s3.yml
                                            One of three such processes that are a cluster.

  hearth query --endpoint=10.0.0.1:10901    Answer PromQL over a receiver, a store gateway, or Thanos.

Flags:
  hearth ROLE --help    lists a role's flags by subject, with what everybody sets first on top;
  hearth all --help     does so for hearth without a role.
  --config.file=FILE    holds flags as "name: value" lines, those of several roles if need be.
  HEARTH_<FLAG>         is a variable for each flag: upper case, . and - become _; several values are
                        separated by commas, or stand in a line each.
  --log.level=debug     logs more; --version says which build this is.

Read on: README.md, and docs/operate/README.md for clusters, tenants, limits, security and sizing.
`
