package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/rule/definition"
)

func rulesCheckCommand() command {
	return command{
		name:    "tools rules-check",
		help:    "Check files of recording and alerting rules.",
		first:   []string{"rules"},
		subject: subject{"What to check", []string{"rules", "output"}},
		bind:    bindRulesCheck,
	}
}

func bindRulesCheck(c *kingpin.CmdClause) func(*builder) {
	var (
		patterns []string
		output   string
	)
	c.Flag("rules", "Files to check: a pattern such as rules/*.yml. May be given several times; each must match a file.").
		PlaceHolder("PATTERN").Required().StringsVar(&patterns)
	c.Flag("output", "text: the verdicts are in the log; json: a line for each file on the standard output, too.").
		Short('o').Default("text").EnumVar(&output, "text", "json")
	return func(b *builder) {
		b.runTool(func(context.Context) error {
			out, bad := json.NewEncoder(b.stdout), 0
			for _, pattern := range patterns {
				b.log.Info("checking", "pattern", pattern)
				names, err := filepath.Glob(pattern)
				if err != nil || names == nil {
					b.log.Error("checked", "result", "FAILED", "pattern", pattern, "error", "matching file not found")
					bad++
				}
				for _, name := range names {
					v := checkRules(b, name)
					if len(v.Faults) > 0 {
						bad++
					}
					if output == "json" {
						if err := out.Encode(v); err != nil {
							return err
						}
					}
				}
			}
			if bad > 0 {
				return fmt.Errorf("%d files or patterns failed", bad)
			}
			return nil
		})
	}
}

// ruleVerdict is what a file was found to be.
type ruleVerdict struct {
	File   string   `json:"file"`
	Rules  int      `json:"rules"`
	Faults []string `json:"faults"`
	Doubts []string `json:"doubts"`
}

// checkRules checks a file and logs the verdict.
func checkRules(b *builder, name string) ruleVerdict {
	name = filepath.Clean(name)
	b.log.Info("checking", "filename", name)
	raw, err := conf.ReadFile(name)
	var c definition.Parsed
	if err != nil {
		c.Faults = []error{errors.New(conf.Plain(err))}
	} else {
		c = definition.ParseFile(raw)
	}
	v := ruleVerdict{File: name, Rules: c.Rules(), Faults: []string{}, Doubts: []string{}}
	for _, doubt := range c.Doubts {
		b.log.Warn("this is most likely a mistake", "filename", name, "warning", doubt)
		v.Doubts = append(v.Doubts, doubt.Error())
	}
	if len(c.Faults) == 0 {
		b.log.Info("checked", "result", "SUCCESS", "filename", name, "rules found", c.Rules())
		return v
	}
	b.log.Error("checked", "result", "FAILED", "filename", name)
	for _, fault := range c.Faults {
		b.log.Error("it has a fault", "filename", name, "error", fault)
		v.Faults = append(v.Faults, fault.Error())
	}
	return v
}
