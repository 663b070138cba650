package main

import (
	"fmt"
	"slices"
	"strings"
	"text/template"

	"github.com/alecthomas/kingpin/v2"
)

// usageTemplate makes kingpin write our own help: short for hearth, by subject for a command.
const usageTemplate = `{{with .Context.SelectedCommand}}{{CommandHelp $.App .FullCommand}}` +
	`{{else}}{{ShortHelp .App}}{{end}}`

// useOwnHelp makes app, which has the commands of all, write that help.
func useOwnHelp(app *kingpin.Application, all []command) {
	app.UsageTemplate(usageTemplate)
	app.UsageFuncs(template.FuncMap{"ShortHelp": shortHelp, "CommandHelp": func(app *kingpin.ApplicationModel,
		name string) string {
		return commandHelp(app, name, named(all, name))
	}})
}

// helpWidth is the longest line of help, in characters.
const helpWidth = 100

// subject is a group of flags in the help of a command.
type subject struct {
	title string
	flags []string // names; a name that ends in * stands for all flags with that beginning
}

// subjects are the groups in their order. A flag belongs to the group that names it with the most characters.
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
		"ignore-deletion-marks-delay", "block-sync-concurrency", "min-time", "max-time", "selector.*", "consistency-delay",
		"index-cache*", "store.caching-bucket*", "bucket-web-label", "web.*"}},
	{"Compaction and retention", []string{"wait*", "retention.*", "compact.*", "delete-delay", "downsampling.*",
		"deduplication.*", "block-files-concurrency"}},
	{"Tenants and their limits", []string{"receive.tenant-*", "receive.default-tenant-id", "receive.split-*",
		"runtime-config.*", "limits.*",
		"receive.limits-*"}},
	{"Writes", []string{"receive.*", "distributor.*"}},
	{"Queries", []string{"query", "query.*", "query-*", "endpoint*", "store.sd-*", "store.response-timeout"}},
	{"Rules and alerts", []string{"rule-*", "rule.*", "eval-interval", "for-*", "restore-*", "resend-delay", "alert.*",
		"alertmanagers.*", "remote-write.config*"}},
	{"StoreAPI, for Thanos and between Hearth processes", []string{"store-api.*", "store.*"}},
	{"Configuration, log, process", []string{"config.*", "log.*", "tracing.*", "request.*", "help*",
		"version", "enable-*", "auto-*", "debug.*",
		"disable-admin-operations", "self-scrape.*"}},
}

// subjectOf is the title of the group in all that names flag, "" when none does.
func subjectOf(all []subject, flag string) string {
	best, title := 0, ""
	for _, s := range all {
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

// groups are the groups of the command's help, in their order.
func (c command) groups() []subject {
	if c.subject.title == "" {
		return subjects
	}
	return append([]subject{c.subject}, subjects...)
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

// commandHelp is what hearth COMMAND --help says of the command of that name, or of a group of commands.
func commandHelp(app *kingpin.ApplicationModel, name string, known command) string {
	c := commandModel(app.CmdGroupModel, name)
	if len(c.Commands) > 0 {
		return groupHelp(c)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "usage: hearth %s [--FLAG=VALUE ...]", name)
	if len(c.Args) > 0 {
		fmt.Fprintf(&b, " %s", c.ArgSummary())
	}
	b.WriteString("\n\n")
	writeWrapped(&b, "", c.Help)
	byName := map[string]*kingpin.FlagModel{}
	groups := map[string][]*kingpin.FlagModel{}
	var hidden []string
	for _, f := range flagModels(app, name) {
		switch {
		case f.Hidden && f.Name != "debug.name" && !strings.HasPrefix(f.Name, "help-") &&
			!strings.HasPrefix(f.Name, "completion-"):
			hidden = append(hidden, "--"+f.Name)
		case !f.Hidden:
			byName[f.Name] = f
			title := subjectOf(known.groups(), f.Name)
			groups[title] = append(groups[title], f)
		}
	}
	if len(known.first) > 0 {
		b.WriteString("\nWhat everybody sets first:\n")
	}
	for _, name := range known.first {
		if f := byName[name]; f != nil {
			writeFlag(&b, f)
		}
	}
	for _, s := range append(known.groups(), subject{title: ""}) {
		writeGroup(&b, s.title, groups[s.title], known.first)
	}
	if len(hidden) > 0 {
		slices.Sort(hidden)
		b.WriteString("\nAccepted as Thanos has them, with a warning that says what to use instead, if anything:\n")
		writeWrapped(&b, "  ", strings.Join(hidden, " "))
	}
	return b.String()
}

// groupHelp is what hearth GROUP --help says of a group of commands.
func groupHelp(group *kingpin.CmdModel) string {
	var b strings.Builder
	fmt.Fprintf(&b, "usage: hearth %s COMMAND [--FLAG=VALUE ...]\n\nCommands:\n", group.FullCommand)
	for _, c := range group.FlattenedCommands() {
		fmt.Fprintf(&b, "  hearth %s\n", c.FullCommand)
		writeWrapped(&b, "      ", c.Help)
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

// writeWrapped writes prefix and text in lines of at most helpWidth characters. Further lines are indented by the
// length of prefix.
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
