package main

import (
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"
)

// command is one thing that hearth does: a role, which runs until it is stopped, or a tool, which ends by itself
// (builder.runTool). All that hearth knows of a command is in its file; allCommands lists them.
type command struct {
	// name is what is typed behind hearth: "query", or "tools bucket ls" of a tool in groups.
	name string
	// help says in a line or two what it does.
	help string
	// first are the names of the flags that everybody sets first.
	first []string
	// subject is the group of help for flags that no other command has; zero = the groups of subjects are enough.
	subject subject
	// idle are the flags that are accepted without effect.
	idle idleTable
	// bind adds the flags to c. What it returns makes the parts, once the flags are parsed.
	bind func(c *kingpin.CmdClause) func(*builder)
}

// allCommands are all commands, in the order of the help.
func allCommands() []command {
	return []command{
		allCommand(),
		receiveCommand(),
		distributorCommand(),
		storeCommand(),
		queryCommand(),
		queryFrontendCommand(),
		compactCommand(),
		sidecarCommand(),
		ruleCommand(),
		bucketIndexCommand(),
		bucketLsCommand(),
		bucketInspectCommand(),
		bucketMarkCommand(),
		bucketCleanupCommand(),
		bucketRetentionCommand(),
		bucketUploadCommand(),
		bucketWebCommand(),
		bucketVerifyCommand(),
		bucketReplicateCommand(),
		bucketRewriteCommand(),
		bucketDownsampleCommand(),
		tenantDeleteCommand(),
		tenantUndeleteCommand(),
		tenantListCommand(),
		seriesDeleteCommand(),
		seriesUndeleteCommand(),
		seriesListCommand(),
		rulesCheckCommand(),
	}
}

// defaultCommand runs when no command is named.
const defaultCommand = "all"

// toolGroup is the first word of every tool's name.
const toolGroup = "tools"

// tool reports whether the command is a tool.
func (c command) tool() bool { return strings.HasPrefix(c.name, toolGroup+" ") }

// named is the command of that name in all, a zero one when there is none.
func named(all []command, name string) command {
	for _, c := range all {
		if c.name == name {
			return c
		}
	}
	return command{}
}

// commandNamed is the command of that name of hearth's.
func commandNamed(name string) command { return named(allCommands(), name) }

// commands are hearth's command line, and the setup of each command by name.
func commands() (*kingpin.Application, map[string]setup) { return commandLine(allCommands()) }

// commandLine is the command line that all make.
func commandLine(all []command) (*kingpin.Application, map[string]setup) {
	app := kingpin.New("hearth", about).DefaultEnvars()
	useOwnHelp(app, all)
	app.Version(version.Print("hearth"))
	app.HelpFlag.Short('h').NoEnvar()
	app.VersionFlag.NoEnvar() // HEARTH_VERSION in a container's environment is the image's, and no wish to see it
	app.Flag("config.file",
		"YAML file of flags: one \"name: value\" a line, a list for a flag that repeats. Flags of other commands are passed "+
			"over, so that one file serves all roles. Flags and HEARTH_* win over it.").
		PlaceHolder("FILE").String()
	app.Flag("log.level", "Least severe messages to log: debug, info, warn or error.").Default("info").
		Enum("debug", "info", "warn", "error")
	app.Flag("log.format", "Form of log lines: logfmt (journald is the same) or json.").Default("logfmt").
		Enum("logfmt", "json", "journald")
	app.Flag("enable-auto-gomemlimit", "Keep the garbage collector within the memory of the container, unless "+
		"GOMEMLIMIT is set.").Default("true").Bool()
	app.Flag("auto-gomemlimit.ratio", "Part of the container's memory that the garbage collector keeps within, above 0 "+
		"and up to 1.").Default("0.9").SetValue(new(ratio))
	app.Flag("debug.name", "Name to put into every log line.").Hidden().String()
	follow := bindTracing(app)
	setups := map[string]setup{}
	groups := map[string]*kingpin.CmdClause{}
	for _, c := range all {
		clause := clauseOf(app, groups, c)
		if c.name == defaultCommand {
			clause.Default()
		}
		setups[c.name] = follow.before(built(c.bind(clause)))
		acceptIdle(clause, c.idle)
	}
	return app, setups
}

// clauseOf adds a command to app, below the groups that its name names. groups are the groups that exist, by name.
func clauseOf(app *kingpin.Application, groups map[string]*kingpin.CmdClause, c command) *kingpin.CmdClause {
	path, last := "", c.name
	parent := app.Command // adds a command to app
	for {
		word, rest, more := strings.Cut(last, " ")
		if !more {
			return parent(last, c.help)
		}
		path, last = strings.TrimSpace(path+" "+word), rest
		if groups[path] == nil {
			groups[path] = parent(word, "Commands that do one thing and end: hearth "+path+" --help lists them.")
		}
		parent = groups[path].Command
	}
}
