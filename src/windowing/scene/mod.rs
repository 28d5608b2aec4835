pub mod detector;
pub mod figures;
pub mod picture;
pub mod sample;
pub mod score;
