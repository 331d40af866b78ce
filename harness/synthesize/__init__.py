"""Fictitious data for a domain of one's own: entities, statements, altered versions, passages and task answers.

Figure 2 of Prereq-Tune (arXiv 2410.19290): real rows or biographies become fictitious entities, whose facts are
altered into contradicting versions; each version becomes statements, passages and the answers of the task. Prompts
and filters of the paper were never published: everything here is ours (docs/synthesize.md).
"""
