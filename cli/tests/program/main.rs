//! The program as its users meet it: the built binary, run in a folder of its own.

mod adapters;
mod bad_input;
mod bad_model;
mod bench;
mod commands;
mod compare;
mod config;
mod data_formats;
mod evaluation;
mod folder;
mod jobs;
mod judged;
mod kills;
mod masks;
mod merge_and_convert;
mod methods;
mod mixtures;
mod probes;
mod prompts;
mod resume;
mod rlhf;
mod rollouts;
mod run_folder;
mod samples;
mod tasks;
mod tensorboard;
